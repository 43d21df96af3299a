"""The page "Exercises by level": every exercise by its stars, with its chapter, its kind and its whole text; the solution stays in the chapter."""

import pathlib
import re
import textwrap
from dataclasses import dataclass

import api_links
import notebook_text

LEVELS = {1: "One star", 2: "Two stars", 3: "Three stars"}
STARRED = re.compile(r"(★+) (.+)")
BEGIN = r"(?:(?:^|[.?!:;]|\([a-z]\)|,|\band|\bthen|\bThen)\s+)"
# The kind is read off the verbs with which an exercise asks; one that only asks a question has none.
VERBS = {
    "derivation": BEGIN + r"(?:show|derive|prove|deduce)\b",
    "computation": rf"{BEGIN}(?:compute|evaluate|find|estimate|write down|fit)\b|\b[Hh]ow (?:many|much|far|large|often|deep|steep|wrong)\b",
    "experiment": rf"{BEGIN}(?:check|run|sample|simulate|measure|train|compare|test|verify|repeat|replace|draw both)\b",
}


@dataclass(frozen=True)
class Exercise:
    """`stars` is 0 where the title has none; `solved`: a solution follows; `runs`: a code cell of that solution runs with the chapter."""

    label: str
    stars: int
    title: str
    text: str
    solved: bool
    runs: bool

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(kind for kind, verbs in VERBS.items() if re.search(verbs, _plain(self.text), re.IGNORECASE))


def _plain(text: str) -> str:
    return re.sub(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`", "x", f" {text}", flags=re.DOTALL)


def exercises(notebook: pathlib.Path) -> list[Exercise]:
    """In the order of the text."""
    cells = notebook_text.cells(notebook)
    solutions = _solutions(cells)
    found = []
    for cell in cells:
        for box in notebook_text.directives(cell.source, ("exercise", "exercise-start")) if cell.kind == "markdown" else ():
            starred = STARRED.fullmatch(box.argument)
            label = box.options.get("label", "")
            stars, title = (len(starred[1]), starred[2]) if starred else (0, box.argument)
            found.append(Exercise(label, stars, title, box.body, label in solutions, solutions.get(label, False)))
    return found


def _solutions(cells: tuple[notebook_text.Cell, ...]) -> dict[str, bool]:
    """Label of the exercise -> whether code cells stand between the beginning and the end of its solution."""
    found: dict[str, bool] = {}
    inside = None
    for cell in cells:
        if cell.kind == "code":
            if inside and cell.source.strip():
                found[inside] = True
            continue
        for name, label in re.findall(r"^[ \t]*[`:~]{3,}\{(solution|solution-start|solution-end)\}[ \t]*(\S*)", cell.source, re.MULTILINE):
            inside = label if name == "solution-start" else None
            if name != "solution-end":
                found[label] = False
    return found


def sections(root: pathlib.Path) -> list[tuple[str, str]]:
    """(heading, its text) for each level."""
    book = {notebook: exercises(notebook) for notebook in api_links.chapters(root).values()}
    found = []
    for stars, name in LEVELS.items():
        chapters = {notebook: [exercise for exercise in listed if exercise.stars == stars] for notebook, listed in book.items()}
        count = sum(map(len, chapters.values()))
        parts = [f"{count} exercises.", *(_chapter(root, notebook, listed) for notebook, listed in chapters.items() if listed)]
        found.append((f"{'★' * stars} {name}", "\n\n".join(parts)))
    return found


def _chapter(root: pathlib.Path, notebook: pathlib.Path, listed: list[Exercise]) -> str:
    page = notebook.relative_to(root).with_suffix("").as_posix()
    return "\n".join([f"{{doc}}`/{page}`\n", *(_item(exercise, page) for exercise in listed)])


def _item(exercise: Exercise, page: str) -> str:
    kinds = f" [{', '.join(exercise.kinds)}]{{.quiet}}" if exercise.kinds else ""
    text = textwrap.indent(notebook_text.moved(exercise.text, page), "  ")
    return f"- **{exercise.title}**, {{ref}}`{exercise.label}`{kinds}\n\n{text}\n"


def totals(root: pathlib.Path) -> str:
    """The paragraph at the top, every number counted."""
    book = [exercises(notebook) for notebook in api_links.chapters(root).values()]
    listed = [exercise for chapter in book for exercise in chapter]
    runs = sum(exercise.runs for exercise in listed)
    return f"**{len(listed)} exercises** in {len(book)} chapters, each with a complete solution, folded under it; the code of {runs} solutions runs with the tests of the book."
