"""A Sphinx extension for the page "Equation, code, literature": book/reference/literature.yml, drawn.

    ```{repositories}
    ```

lists the repositories that the page links to, each with its commit. `{literature} samplers` draws the results of one theme: the formula, our names with
links to their entries, the paper, and where the repositories have it. `{literature-index}` leads to each result of the page, theme by theme.
"""

import functools
import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import api_links
import yaml
from docutils import nodes
from made_pages import inside, parsed
from result_map import plain
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "book" / "reference" / "literature.yml"
BOX = re.compile(r"\{prf:\w+\}[ \t]*([^\n]*)\n:label:[ \t]*(\S+)")
LABEL = re.compile(r"(?::label:[ \t]*|\$\$[ \t]*\()([A-Za-z][\w-]*\w)")
THEME = re.compile(r"^## ([^\n]+)\n\n```\{literature\} (\w+)$", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`(?!`)")
ROLE = re.compile(r"\{[\w:]+\}`[^`]+`")


@dataclass(frozen=True)
class Repository:
    """`at`: the commit, or for a library the release, at which its lines were read; `folder`: what the paths leave out."""

    key: str
    name: str
    at: str
    license: str
    about: str
    folder: str = ""

    @property
    def url(self) -> str:
        return f"https://github.com/{self.name}/tree/{self.at}"


@dataclass(frozen=True)
class Place:
    """A line of a repository: `at` is a commit, or a release; `path` is below the repository's folder; `says` how its convention differs, or nothing."""

    repository: Repository
    at: str
    path: str
    line: int
    name: str
    says: str

    @property
    def url(self) -> str:
        return f"https://github.com/{self.repository.name}/blob/{self.at}/{self.repository.folder}{self.path}#L{self.line}"


@dataclass(frozen=True)
class Result:
    """A labeled result of a chapter; `title` is empty where the chapter gives one."""

    label: str
    title: str
    formula: str
    here: str
    paper: str
    elsewhere: tuple[Place, ...]


@functools.cache
def repositories() -> dict[str, Repository]:
    return {key: Repository(key, **fields) for key, fields in _data()["repositories"].items()}


@functools.cache
def themes() -> dict[str, tuple[Result, ...]]:
    return {theme: tuple(map(_result, results)) for theme, results in _data()["themes"].items()}


@functools.cache
def _data() -> dict[str, Any]:
    return yaml.safe_load(DATA.read_text(encoding="utf-8"))


def _result(fields: dict[str, Any]) -> Result:
    elsewhere = tuple(_place(key, says) for key, says in fields["elsewhere"].items())
    return Result(**({"title": ""} | fields | {"elsewhere": elsewhere}))


def _place(key: str, says: str) -> Place:
    where, path, line, name = key.split()
    repository, _, commit = where.partition("@")
    found = repositories()[repository]
    return Place(found, commit or found.at, path, int(line), name, says or "")


@functools.cache
def chapters_of_labels() -> dict[str, tuple[str, str]]:
    """The number of the chapter that defines a label, and the title of its box, empty for an equation."""
    found: dict[str, tuple[str, str]] = {}
    for number, path in api_links.chapters(ROOT).items():
        text = "\n\n".join(source for kind, source in api_links.cells(path) if kind == "markdown")
        found |= dict.fromkeys(LABEL.findall(text), (number, ""))
        found |= {label: (number, title.strip()) for title, label in BOX.findall(text)}
    return found


def our_names(text: str) -> list[str]:
    """The inline code of the line of our names."""
    return CODE.findall(ROLE.sub("", text))


def linked(text: str) -> str:
    """The same line, in which each of our names leads to its entry."""
    codes = our_names(text)

    def link(found: re.Match[str]) -> str:
        path = api_links.in_column(found[1], codes)
        return f"{{py:obj}}`{found[1]} <diffusion_core.{path}>`" if path else found[0]

    return CODE.sub(link, text)


def title_of(result: Result) -> str:
    return result.title or chapters_of_labels()[result.label][1]


def index_text(page: str) -> str:
    """A list with an item for each theme of the page, in which every result is a link to its entry."""
    items = []
    for heading, theme in THEME.findall(page):
        links = [f"{{ref}}`{plain(title_of(result))} <literature-{result.label}>`" for result in themes()[theme]]
        items.append(f"- *{heading}*: {', '.join(links)}.")
    return "\n".join(items)


def result_text(result: Result) -> str:
    number = chapters_of_labels()[result.label][0]
    where = f"Equation {{eq}}`{result.label}`" if result.label.startswith("eq-") else f"{{prf:ref}}`{result.label}`"
    chapter = api_links.chapters(ROOT)[number].relative_to(ROOT).with_suffix("").as_posix()
    lines = [
        f"(literature-{result.label})=",
        f"**{title_of(result)}.** {where} of {{doc}}`chapter\u00a0{number} </{chapter}>`",
        f":::{{container}} formula\n{formula(result.formula)}\n:::",
        "\n".join([f"- *Here*: {linked(result.here)}.", f"- *Paper*: {result.paper}.", *_elsewhere(result)]),
    ]
    body = "\n\n".join(lines)
    return f":::::{{container}} literature\n{body}\n:::::"


def formula(tex: str) -> str:
    """In parts, between which a narrow screen begins a new line."""
    parts = re.split(r"(\\qquad|\\allowbreak)\s*", tex)
    return "".join({"\\qquad": "\u2003\u2003", "\\allowbreak": "\u200b"}.get(part) or f"$\\displaystyle {part}$" for part in parts)


def _elsewhere(result: Result) -> Iterator[str]:
    """One item a repository, in the order in which the page introduces them."""
    for repository in repositories().values():
        places = [place for place in result.elsewhere if place.repository == repository]
        if places:
            yield f"- *{repository.name.partition('/')[2]}*: " + " ".join(_place_text(place) for place in places)


def _place_text(place: Place) -> str:
    where = f"[`{place.name}`]({place.url}) in `{place.path}`."
    return f"{where} {place.says}" if place.says else where


def repository_text(repository: Repository) -> str:
    at = repository.at if repository.at.startswith("v") else repository.at[:7]
    link = f"**[{repository.name}](https://github.com/{repository.name})**"
    folder = f" Paths are below `{repository.folder}`." if repository.folder else ""
    return f"- {link}, read at [`{at}`]({repository.url}), {repository.license}. {repository.about}{folder}"


class Literature(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        theme = self.arguments[0]
        if theme not in themes():
            raise self.error(f"book/reference/literature.yml has no theme {theme!r}; there are {', '.join(themes())}")
        self.env.note_dependency(str(DATA))
        return parsed(self, "\n\n".join(map(result_text, themes()[theme])))


class LiteratureIndex(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(DATA))
        return [inside(self, index_text(pathlib.Path(self.env.doc2path(self.env.docname)).read_text(encoding="utf-8")), ["literature-index"])]


class Repositories(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(DATA))
        return parsed(self, "\n".join(map(repository_text, repositories().values())))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("literature", Literature)
    app.add_directive("literature-index", LiteratureIndex)
    app.add_directive("repositories", Repositories)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
