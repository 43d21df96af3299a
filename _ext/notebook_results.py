"""The labeled results of a notebook and the checks of each: what was printed, the calls that printed it, and what the chapter says of them.

A result is an equation or a theorem-like box whose label begins `eq-`, `thm-`, `prop-`, `lem-` or `cor-`. A line that a passed check printed belongs to
each result that it names: `✓ prop-affine, the shadow: |got - want| <= 1e-08`.
"""

import ast
import functools
import pathlib
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import api_links
import notebook_text
from notebook_text import Cell

KINDS = {"thm": "theorem", "prop": "proposition", "lem": "lemma", "cor": "corollary", "eq": "equation"}
LABEL = re.compile(r"\b(?:eq|thm|prop|lem|cor)-[\w-]*\w")
BOXES = tuple(f"{prefix}{name}" for prefix in ("prf:", "") for name in ("theorem", "proposition", "lemma", "corollary"))
FORMULA = re.compile(r"\$\$([^$]+)\$\$[ \t]*\((eq-[\w-]*\w)\)")
TICK = "✓ "
# Words by which a chapter says how it checks; a paragraph without one of them is about something else.
METHOD = re.compile(
    r"\b(?:[Cc]heck(?:s|ed|ing)?|[Rr]eferees?|[Cc]ompar(?:e|es|ed)|quadrature|Monte Carlo|brute[- ]force|autograd|automatic differentiation|numerical(?:ly)?"
    r"|[Ww]e (?:test|measure|confirm)|knows? (?:nothing|no|neither)|know nothing|enumerat\w+|by counting|independent answer|without (?:any sampling|randomness)"
    r"|must agree|has to agree|SciPy|in closed form)\b"
)


@dataclass(frozen=True)
class Result:
    """A labeled result; `title` is empty for an equation, whose statement is its formula."""

    label: str
    title: str
    statement: str

    @property
    def kind(self) -> str:
        return KINDS[self.label.split("-")[0]]


@dataclass(frozen=True)
class Check:
    """What one cell does for one result. `calls`: the calls of `check` that name it, empty where the name is put together elsewhere."""

    lines: tuple[str, ...]
    calls: tuple[str, ...]
    words: str
    source: str


@functools.cache
def results(notebook: pathlib.Path) -> tuple[Result, ...]:
    """In the order of the text."""
    found: list[Result] = []
    for cell in notebook_text.cells(notebook):
        if cell.kind == "markdown":
            found += [result for _, result in sorted(_of_cell(cell.source), key=lambda item: item[0])]
    return tuple(found)


def _of_cell(source: str) -> Iterator[tuple[int, Result]]:
    for box in notebook_text.directives(source, BOXES):
        if LABEL.fullmatch(box.options.get("label", "")):
            yield box.start, Result(box.options["label"], box.argument, box.body)
    for formula in notebook_text.directives(source, ("math",)):
        if LABEL.fullmatch(formula.options.get("label", "")):
            yield formula.start, Result(formula.options["label"], "", f"$$\n{formula.body}\n$$")
    for formula in FORMULA.finditer(source):
        yield formula.start(), Result(formula[2], "", f"$$\n{formula[1].strip()}\n$$")


def lines_of(printed: str) -> list[str]:
    """The lines of passed checks in what a cell printed."""
    return [line for line in printed.splitlines() if line.startswith(TICK)]


def claim(line: str) -> str:
    """What the line of a check states: `|got - want| <= 1e-08`, `at most 0.5`."""
    return line.rpartition(": ")[2]


def kinds_of_claims(lines: Iterable[str]) -> Counter[str]:
    """How many lines state an equality up to a tolerance, within standard errors, or an inequality."""
    return Counter("below a bound" if claim(line).startswith("at most") else "standard errors" if "standard errors" in claim(line) else "tolerance" for line in lines)


@functools.cache
def checks(notebook: pathlib.Path) -> dict[str, list[Check]]:
    """The checks of each result that the notebook's stored outputs name, cell by cell."""
    found: dict[str, list[Check]] = {}
    cells = notebook_text.cells(notebook)
    for place, cell in enumerate(cells):
        lines = lines_of(cell.printed) if cell.kind == "code" else []
        named = dict.fromkeys(label for line in lines for label in LABEL.findall(line))
        calls = _calls(cell.source) if named else []
        for label in named:
            own = tuple(line for line in lines if label in LABEL.findall(line))
            called = tuple(text for labels, text in calls if label in labels)
            found.setdefault(label, []).append(Check(own, called, said_before(cells, place), cell.source))
    return found


def _calls(source: str) -> list[tuple[frozenset[str], str]]:
    """The calls of `check` and `check_below` in a cell, each with the labels that its first argument spells out."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("check", "check_below") and node.args:
            strings = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            labels = frozenset(label for string in strings for label in LABEL.findall(string))
            lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
            found.append((labels, node.lineno, textwrap.dedent("\n".join(lines))))
    return [(labels, text) for labels, _, text in sorted(found, key=lambda item: item[1])]


def said_before(cells: tuple[Cell, ...], place: int) -> str:
    """What the Markdown before a cell says of its check: the end of the last paragraph, from the first sentence that speaks of a method; a short
    paragraph that ends with a colon belongs to the cell as a whole. Empty where the text ends with a proof, or with something else."""
    before = next((cell.source for cell in reversed(cells[:place]) if cell.kind == "markdown"), "")
    blocks = notebook_text.paragraphs(before)
    if not blocks or notebook_text.DIRECTIVE.match(blocks[-1]) or re.match(r"#|\||\$\$|[-*] |\d+\. ", blocks[-1]):
        return ""
    said = notebook_text.sentences(blocks[-1])
    first = next((i for i, sentence in enumerate(said) if METHOD.search(sentence)), None)
    if first is not None:
        leans = first > 0 and re.match(r"(?:So|Its?|And|They|Neither|Then)\b", said[first])
        return " ".join(said[first - 1 if leans else first :])
    return " ".join(said) if said[-1].endswith(":") and len(said) <= 2 else ""


def in_code(notebook: pathlib.Path, label: str) -> list[tuple[str, dict[str, str]]]:
    """Where the chapter's table of names has the result: (the cell of our column, {inline code: the path of the public name that it is})."""
    found = []
    for row in api_links.code_section(notebook).splitlines():
        columns = row.strip().strip("|").split("|")
        if row.strip().startswith("|") and len(columns) > 1 and label in re.findall(r"\{(?:prf:ref|eq)\}`(?:[^`<]*<)?([^`>]+)>?`", columns[0]):
            codes = api_links.CODE.findall(columns[1])
            paths = {code: path for code in codes if (path := api_links.in_column(code, codes))}
            if paths:
                found.append((columns[1].strip(), paths))
    return found
