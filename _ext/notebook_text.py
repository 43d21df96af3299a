"""What stands in a notebook, read from its file: cells with what they printed, directives, sections, and text that is to be shown on another page."""

import functools
import json
import pathlib
import posixpath
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

DIRECTIVE = re.compile(r"^([ \t]*)([`:~]{3,})\{([\w:-]+)\}[ \t]*([^\n]*)\n(.*?)^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"\s*:([\w-]+):[ \t]*([^\n]*)\n")
DOC_ROLE = re.compile(r"(\{doc\}`(?:[^`<]*<)?)(?!/|[^`<]*<)([^`<>]+)(>?`)")
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s:#/][^)\s:]*)(\))")


@dataclass(frozen=True)
class Cell:
    """A cell of a notebook; `printed` is what its stored outputs hold of its standard output."""

    kind: str
    source: str
    printed: str


@dataclass(frozen=True)
class Directive:
    """A MyST directive in a Markdown cell: `start` and `end` are its places in the cell's text."""

    name: str
    argument: str
    options: dict[str, str]
    body: str
    start: int
    end: int


@functools.cache
def cells(notebook: pathlib.Path) -> tuple[Cell, ...]:
    read = json.loads(notebook.read_text(encoding="utf-8"))
    return tuple(Cell(cell["cell_type"], "".join(cell["source"]), _printed(cell)) for cell in read["cells"])


def _printed(cell: dict) -> str:
    outputs = cell.get("outputs", [])
    return "".join("".join(out["text"]) for out in outputs if out["output_type"] == "stream" and out["name"] == "stdout")


def markdown(notebook: pathlib.Path) -> str:
    return "\n\n".join(cell.source for cell in cells(notebook) if cell.kind == "markdown")


def title(notebook: pathlib.Path) -> str:
    """The heading of the first rank, `10 Denoising is score matching`."""
    found = re.search(r"^# (.+)$", markdown(notebook), re.MULTILINE)
    if not found:
        raise ValueError(f"{notebook.name} has no heading of the first rank")
    return found[1].strip()


def section(notebook: pathlib.Path, heading: str) -> str:
    """The Markdown under `## heading`, up to the next heading of that rank; empty without such a heading."""
    found = re.search(rf"^## {heading}[ \t]*$(.*?)(?=^## |\Z)", markdown(notebook), re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def directives(source: str, names: Collection[str]) -> Iterator[Directive]:
    """The directives of these names in a piece of Markdown, those inside of others included, in the order of their beginnings."""
    start = 0
    while found := DIRECTIVE.search(source, start):
        if found[3] in names:
            body, options = found[5], {}
            while option := OPTION.match(body):
                options[option[1]], body = option[2].strip(), body[option.end() :]
            yield Directive(found[3], found[4].strip(), options, body.strip("\n"), found.start(), found.end())
        start = found.start() + len(found[0].split("\n", 1)[0])


def paragraphs(source: str) -> list[str]:
    """The blocks of a Markdown text; a directive is one block, whatever blank lines it holds."""
    ends = [0]
    blocks = []
    for found in DIRECTIVE.finditer(source):
        blocks += re.split(r"\n[ \t]*\n", source[ends[-1] : found.start()])
        blocks.append(found[0])
        ends.append(found.end())
    blocks += re.split(r"\n[ \t]*\n", source[ends[-1] :])
    return [block.strip() for block in blocks if block.strip()]


def moved(text: str, docname: str) -> str:
    """The text as another page may hold it: links to documents count from the root of the book, and no equation is labeled a second time."""
    folder = posixpath.dirname(f"/{docname}")

    def absolute(found: re.Match[str]) -> str:
        return f"{found[1]}{posixpath.normpath(posixpath.join(folder, found[2]))}{found[3]}"

    text = re.sub(r"(\$\$)[ \t]*\([A-Za-z][\w-]*\)[ \t]*$", r"\1", text, flags=re.MULTILINE)
    return LINK.sub(absolute, DOC_ROLE.sub(absolute, text))


def sentences(text: str) -> list[str]:
    """A text cut behind `.`, `?`, `!` and `…` where something new begins, never inside of a formula or code."""
    text = " ".join(text.split())
    cuts = [0]
    for found in re.finditer(r"\$[^$]*\$|`[^`]*`|(?<=[.?!…])(?P<end>[*\"”)]*) (?=[A-Z\"“*`$({])", text):
        if found["end"] is not None and not re.search(r"\b(?:eq|fig|al|e\.g|i\.e|vs|no)\.$", text[: found.start()]):
            cuts.append(found.end())
    return [text[start:end].strip() for start, end in zip(cuts, [*cuts[1:], len(text)])]
