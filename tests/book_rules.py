"""What every notebook of the book must fulfil, as pure functions: a notebook in, one readable line a finding out.

`NOTEBOOK_RULES` holds for every notebook, `CHAPTER_RULES` for the numbered chapters too; `tests/test_book.py` applies them to the book,
`tests/test_book_rules.py` proves that each can fail.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator

from bs4 import BeautifulSoup
from nbformat import NotebookNode

MAX_BYTES = 1_500_000
MIN_EXERCISES = 4
MAX_LINES = 25
MAX_COLUMNS = 100
MAX_SETUP_LINES = 10
RESULT = re.compile(r"\b(?:eq|thm|prop|lem|cor)-[\w-]*\w")
DEFINED_LABEL = re.compile(r"(?::label:[ \t]*|:name:[ \t]*|\$\$[ \t]*\(|\\label\{|^\((?=[\w-]+\)=))([A-Za-z][\w-]*\w)", re.M)
EXERCISE = re.compile(r"\{exercise(?:-start)?\}[^\n]*\n(?:\s*:(?!label:)[^\n]*\n)*\s*:label:[ \t]*(\S+)")
EXERCISE_START = re.compile(r"^\s*[`:~]{3,}\{exercise(?:-start)?\}", re.M)
EXERCISE_TITLE = re.compile(r"^\s*[`:~]{3,}\{exercise(?:-start)?\}[ \t]*(★*)[ \t]*([^\n]*)", re.M)
SOLUTION = re.compile(r"\{solution(?:-start)?\}[ \t]*(\S+)")
HEADING = re.compile(r"^#{2,}[ \t]+(.*)$", re.M)
SECTIONS = ("Break it", "Misconceptions", "Exercises", "In the code")
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|Users|root|work|tmp|private|mnt|usr/local)/[\w.-]+|\b[A-Z]:\\\\?[\w.-]+\\")
TIME_STAMP = re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d|\b\d\d:\d\d:\d\d\b")
PROGRESS = re.compile(r"\r|it/s\]|s/it\]|\d%\|")
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/svg+xml")

Rule = Callable[[NotebookNode], Iterator[str]]


def text_of(nb: NotebookNode) -> str:
    """All markdown cells, joined."""
    return "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")


def code_cells(nb: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    """The code cells that are not empty, each with its position in the notebook."""
    return ((i, cell) for i, cell in enumerate(nb.cells) if cell.cell_type == "code" and cell.source.strip())


def tags_of(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def defined_labels(text: str) -> set[str]:
    """Labels that a page defines: of equations, directives and sections."""
    return set(DEFINED_LABEL.findall(text))


def check_calls(source: str) -> set[str]:
    """The literal labels that `source` hands to check() and check_below()."""
    labels = set()
    code = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and node.args and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("check", "check_below"):
            for part in ast.walk(node.args[0]):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    labels.update(RESULT.findall(part.value))
    return labels


def _printed(cell: NotebookNode) -> str:
    return "".join(out.text for out in cell.outputs if out.output_type == "stream" and out.name == "stdout")


def executed_in_order(nb: NotebookNode) -> Iterator[str]:
    for expected, (i, cell) in enumerate(code_cells(nb), start=1):
        if cell.execution_count != expected:
            yield f"cell {i} has execution count {cell.execution_count}, expected {expected}: run `make execute`"
            return


def no_error_or_stderr(nb: NotebookNode) -> Iterator[str]:
    for i, cell in code_cells(nb):
        for out in cell.outputs:
            if out.output_type == "error" and "raises-exception" not in tags_of(cell):
                yield f"cell {i} stores an error: {out.ename}: {out.evalue[:80]}"
            if out.output_type == "stream" and out.name == "stderr":
                yield f"cell {i} stores stderr: {out.text[:80]!r}"


def no_widget(nb: NotebookNode) -> Iterator[str]:
    if "widgets" in nb.metadata:
        yield "the notebook's metadata store widgets; run `make execute`"
    for i, cell in code_cells(nb):
        if any("widget" in kind for out in cell.outputs for kind in out.get("data", {})):
            yield f"cell {i} stores a widget, which is dead without a kernel"


def small_enough(nb: NotebookNode) -> Iterator[str]:
    size = len(json.dumps(nb, ensure_ascii=False).encode())
    if size >= MAX_BYTES:
        yield f"{size / 1e6:.2f} MB, {MAX_BYTES / 1e6:.1f} MB at most: fewer or smaller figures"


def alt_texts(nb: NotebookNode) -> Iterator[str]:
    for i, cell in enumerate(nb.cells):
        if cell.cell_type == "markdown":
            if re.search(r"!\[\s*\]\(", cell.source):
                yield f"cell {i} has a picture without an alt text: write ![what is seen](file)"
            for match in re.finditer(r"^\s*([`:~]{3,})\{(?:figure|image)\}(.*?)^\s*\1", cell.source, re.M | re.S):
                if not re.search(r"^\s*:alt:\s*\S", match[2], re.M):
                    yield f"cell {i} has a figure directive without `:alt:`"
        pictures = [out for out in cell.get("outputs", []) if any(kind in out.get("data", {}) for kind in IMAGE_TYPES)]
        if len(pictures) > 1:
            yield f"cell {i} shows {len(pictures)} figures; one figure a cell, so that each has its caption and alt text"
        if pictures and not cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip():
            yield f'cell {i} shows a figure without an alt text: set the cell\'s metadata "mystnb": {{"image": {{"alt": "..."}}}}'
        for out in cell.get("outputs", []):
            html = "".join(out.get("data", {}).get("text/html", ""))
            if any(img.get("alt") is None for img in BeautifulSoup(html, "html.parser").find_all("img")):
                yield f"cell {i} shows HTML with an <img> that has no alt attribute"


def results_checked(nb: NotebookNode) -> Iterator[str]:
    called: set[str] = set()
    passed: set[str] = set()
    for _, cell in code_cells(nb):
        called |= check_calls(cell.source)
        passed |= {label for line in _printed(cell).splitlines() if line.startswith("✓") for label in RESULT.findall(line)}
    for label in sorted(filter(RESULT.fullmatch, defined_labels(text_of(nb)))):
        if label not in called:
            yield f"{label} is a result, and no check() or check_below() has its label"
        elif label not in passed:
            yield f"{label} has a check, and no stored output says that it passed"


def checks_compared(nb: NotebookNode) -> Iterator[str]:
    for i, cell in code_cells(nb):
        if "✓" in _printed(cell) and "nbval-check-output" not in tags_of(cell):
            yield f"cell {i} prints check lines and is not tagged nbval-check-output"


def exercises_solved(nb: NotebookNode) -> Iterator[str]:
    text = text_of(nb)
    labels, solved, count = EXERCISE.findall(text), set(SOLUTION.findall(text)), len(EXERCISE_START.findall(text))
    if count > len(labels):
        yield "an exercise has no :label:"
    if count < MIN_EXERCISES:
        yield f"{count} exercises, at least {MIN_EXERCISES} expected"
    for label in labels:
        if not label.startswith("ex-"):
            yield f"exercise {label}: the label must begin with ex-"
        if label not in solved:
            yield f"exercise {label} has no solution"


def exercises_by_level(nb: NotebookNode) -> Iterator[str]:
    before = 0
    for stars, title in EXERCISE_TITLE.findall(text_of(nb)):
        if len(stars) < before:
            yield f"exercise {title!r} has {len(stars)} stars and follows one with {before}: order them by level"
        before = len(stars)


def all_sections(nb: NotebookNode) -> Iterator[str]:
    headings = [heading.lower() for heading in HEADING.findall(text_of(nb))]
    for section in SECTIONS:
        if not any(section.lower() in heading for heading in headings):
            yield f"no section whose heading says {section!r}"


def code_on_a_screen(nb: NotebookNode) -> Iterator[str]:
    for i, cell in code_cells(nb):
        lines = cell.source.splitlines()
        if len(lines) > MAX_LINES:
            yield f"cell {i} has {len(lines)} lines, {MAX_LINES} at most: split it, or move what is not taught here into diffusion_core"
        if max(map(len, lines)) > MAX_COLUMNS:
            yield f"cell {i} has a line of {max(map(len, lines))} characters, {MAX_COLUMNS} at most: longer lines are cut off on the page"


def long_setup_folded(nb: NotebookNode) -> Iterator[str]:
    """A reader wants the first picture, not a screen of imports."""
    for i, first in list(code_cells(nb))[:1]:
        lines = first.source.count("\n") + 1
        if lines > MAX_SETUP_LINES and "hide-input" not in tags_of(first):
            yield f"cell {i}: {lines} lines of imports and setup stand before the first picture: fold them with the tag hide-input"


def portable(nb: NotebookNode) -> Iterator[str]:
    if "version" in nb.metadata.get("language_info", {}) or any("execution" in cell.metadata for cell in nb.cells):
        yield "stores the time or the Python version of a run: `make execute` normalizes it"
    for i, cell in enumerate(nb.cells):
        shown = json.dumps([[out.get("text", ""), out.get("data", {}).get("text/plain", "")] for out in cell.get("outputs", [])])
        if "to_jshtml" in cell.source:
            yield f"cell {i} uses to_jshtml, which has random ids and fetches a font: use diffusion_core.plots"
        for name, pattern, where in (
            ("an absolute path", ABSOLUTE_PATH, cell.source + shown),
            ("a time stamp", TIME_STAMP, shown),
            ("a progress bar", PROGRESS, shown.replace("\\r", "\r")),
        ):
            if match := pattern.search(where):
                yield f"cell {i} holds {name}: {match[0]!r}"


NOTEBOOK_RULES: tuple[Rule, ...] = (
    executed_in_order,
    no_error_or_stderr,
    no_widget,
    small_enough,
    alt_texts,
    results_checked,
    checks_compared,
    code_on_a_screen,
    long_setup_folded,
    portable,
)
CHAPTER_RULES: tuple[Rule, ...] = (exercises_solved, exercises_by_level, all_sections)
