"""A Sphinx extension: two drawings of what needs what, made from the chapters when the book is built.

`{result-map}` draws chosen results; a line leads from one to another when the proof of the second uses the first, which the proofs themselves say
(`proof_graph`). Its body is YAML: a list of results (`label`, `at`: [column, row], `name`, `formula`) and of headings (`band`: row, `text`: one or one a
column). `{result-list}` says the same in words, with every citation. `{chapter-map}` draws the chapters, each in its `column`; its lines are what each
chapter's box asks for.
The drawings are raw HTML with links that Sphinx has resolved: a label that does not exist is an error.
"""

import html
import pathlib
import re
import textwrap
from collections.abc import Collection
from typing import Any

import api_links
import notebook_text
import proof_graph
import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from grid_drawing import Box, Drawing
from made_pages import inside, note_book
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

LETTERS = {"alpha": "α", "beta": "β", "epsilon": "ε", "eta": "η", "lambda": "λ", "nu": "ν", "sigma": "σ", "tau": "τ", "theta": "θ", "varsigma": "ς"}
LOOKS = {"ground": "ground", "variational": "variational", "score": "score", "sde": "sde", "unity": "unity"}
WIDTH = 14  # characters of a line in a box
BODY = re.compile(r"^```\{result-map\}[^\n]*\n(?::\w+:[^\n]*\n)*(.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"\*\*You need(?: first)?\*\*:?[ \t]*(.*?)(?=\n[ \t]*\n|\n- \*\*|\n:::|\Z)", re.DOTALL)


class drawing(nodes.General, nodes.Element):
    """Where a drawing will be; it becomes raw HTML once the pages of all links are known."""


def entries(body: str) -> tuple[list[dict[str, Any]], dict[int, list[str]]]:
    """The results and the headings of a `{result-map}`."""
    items = yaml.safe_load(body)
    return [item for item in items if "label" in item], {item["band"]: item["text"] for item in items if "band" in item}


def wrapped(text: str) -> list[tuple[str, str]]:
    return [("name", line) for line in textwrap.wrap(text, WIDTH)]


def plain(title: str) -> str:
    """A title without markup, for the text of a link: `At $\\eta=1$` -> `At η=1`. ValueError where a command is not a letter."""
    text = re.sub(r"\\(\w+) ?", lambda match: LETTERS.get(match[1], match[0]), title).replace("$", "")
    if "\\" in text:
        raise ValueError(f"the title {title!r} has no plain text; add its letters to LETTERS")
    return text.replace("^2", "²")


def number(notebook: pathlib.Path) -> str:
    return notebook.name[:2]


def docname(notebook: pathlib.Path, root: pathlib.Path) -> str:
    return "/" + notebook.relative_to(root).with_suffix("").as_posix()


def result_drawing(body: str, root: pathlib.Path) -> Drawing:
    known = proof_graph.results(root)
    items, bands = entries(body)
    missing = [item["label"] for item in items if item["label"] not in known]
    if missing:
        raise ValueError(f"the map of results names labels that no chapter has: {', '.join(missing)}")
    boxes = []
    for item in items:
        result = known[item["label"]]
        lines = (*wrapped(item["name"]), ("formula", item["formula"]))
        said = f"{item['name']}, {result.kind} in chapter {number(result.notebook)}"
        boxes.append(Box(item["label"], *item["at"], LOOKS[result.notebook.parent.name], lines, said))
    return Drawing(boxes, drawn_edges(known, [item["label"] for item in items]), bands)


def drawn_edges(known: dict[str, proof_graph.Proved], labels: Collection[str]) -> set[tuple[str, str]]:
    return proof_graph.without_shortcuts(proof_graph.routes(known, labels))


def result_list(body: str, root: pathlib.Path) -> str:
    """Every result of the map in words, as MyST: what its proof uses, by way of what, and what uses it."""
    known = proof_graph.results(root)
    names = {item["label"]: item["name"] for item in entries(body)[0]}
    ways = proof_graph.routes(known, names)

    def link(label: str) -> str:
        return f"{{prf:ref}}`{names.get(label) or plain(known[label].title) or label} <{label}>`"

    def used(start: str, end: str) -> str:
        between = ways[start, end]
        return link(start) + (f" (by way of {', '.join(map(link, reversed(between)))})" if between else "")

    lines = []
    for label in names:
        above = [used(start, end) for start, end in ways if end == label]
        below = [link(end) for start, end in ways if start == label]
        parts = [f"Uses {'; '.join(above)}." if above else "Uses no other result of the map.", f"Used by {', '.join(below)}." if below else ""]
        home = known[label].notebook
        lines.append(f"- **{link(label)}**, chapter {{doc}}`{number(home)} <{docname(home, root)}>`. {' '.join(filter(None, parts))}")
    return "\n".join(lines)


def needs(notebook: pathlib.Path, root: pathlib.Path) -> list[str]:
    """The numbers of the chapters that a chapter's box asks for: those which the first sentence of "You need first" links."""
    box = NEEDS.search(notebook_text.markdown(notebook))
    if box is None:
        raise ValueError(f"{notebook.name} does not say what you need first")
    sentence = notebook_text.sentences(box[1])[0]
    linked = dict.fromkeys(re.findall(r"\{doc\}`(?:[^`<]*<)?(?:[^`>]*/)?(\d\d)_[^`>]*>?`", sentence))
    later = [name for name in linked if name >= number(notebook)]
    if later:
        raise ValueError(f"the box of {notebook.name} asks for chapter {', '.join(later)}, which comes later")
    return list(linked)


def chapter_drawing(body: str, root: pathlib.Path) -> Drawing:
    """Each chapter in its column, in the first free row below all that it needs."""
    chapters = api_links.chapters(root)
    items = {item["chapter"]: item for item in yaml.safe_load(body)}
    if set(items) != set(chapters):
        raise ValueError(f"the map of chapters must have each chapter: {sorted(set(chapters) ^ set(items))}")
    edges = {(needed, name) for name, notebook in chapters.items() for needed in needs(notebook, root)}
    boxes: dict[str, Box] = {}
    for name in sorted(items):
        column = items[name]["column"]
        row = max((boxes[needed].row + 1 for needed, user in edges if user == name), default=0)
        while any((box.column, box.row) == (column, row) for box in boxes.values()):
            row += 1
        lines = (("formula", name), *wrapped(items[name]["name"]))
        boxes[name] = Box(name, column, row, LOOKS[chapters[name].parent.name], lines, notebook_text.title(chapters[name]))
    return Drawing(list(boxes.values()), proof_graph.without_shortcuts(edges))


class Map(SphinxDirective):
    has_content = True
    option_spec = {"title": directives.unchanged_required, "alt": directives.unchanged_required, "caption": directives.unchanged_required}
    kind = ""

    def run(self) -> list[nodes.Node]:
        root = note_book(self.env)
        try:
            made = (result_drawing if self.kind == "results" else chapter_drawing)("\n".join(self.content), root)
        except ValueError as error:
            raise self.error(str(error)) from error
        return [drawing(made=made, kind=self.kind, **self.options)]


class ResultMap(Map):
    kind = "results"


class ChapterMap(Map):
    kind = "chapters"


class ResultList(SphinxDirective):
    """The map of the page in words."""

    def run(self) -> list[nodes.Node]:
        root = note_book(self.env)
        body = BODY.search(pathlib.Path(self.env.doc2path(self.env.docname)).read_text(encoding="utf-8"))
        if body is None:
            raise self.error("a {result-list} needs a {result-map} on its page")
        return [inside(self, result_list(body[1], root), ["result-list"])]


class Draw(SphinxPostTransform):
    """The drawings as raw HTML, before anything that takes raw HTML apart."""

    default_priority = 2

    def run(self, **kwargs: Any) -> None:
        root = pathlib.Path(self.env.srcdir)
        for place in list(self.document.findall(drawing)):
            known = proof_graph.results(root) if place["kind"] == "results" else {}
            chapters = api_links.chapters(root)

            def link(box: Box, known: dict[str, proof_graph.Proved] = known, chapters: dict[str, pathlib.Path] = chapters) -> str:
                if self.app.builder.format != "html":
                    return ""
                notebook = known[box.name].notebook if known else chapters[box.name]
                uri = self.app.builder.get_relative_uri(self.env.docname, docname(notebook, root).lstrip("/"))
                return f"{uri}#{box.name}" if known else uri

            key = f"map-of-{place['kind']}"
            svg = place["made"].svg(link, "grid-map", place["title"], place["alt"], key)
            caption = f'<figcaption id="{key}-caption">{html.escape(place["caption"])}</figcaption>'
            text = f'<figure class="grid-map-figure" role="group" aria-labelledby="{key}-caption">{svg}{caption}</figure>'
            place.replace_self(nodes.raw("", text, format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(drawing)
    app.add_directive("result-map", ResultMap)
    app.add_directive("result-list", ResultList)
    app.add_directive("chapter-map", ChapterMap)
    app.add_post_transform(Draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
