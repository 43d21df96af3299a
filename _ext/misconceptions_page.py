"""The page "Misconceptions, collected": the section of that name of each chapter, sentence by sentence."""

import pathlib
import re
from dataclasses import dataclass

import api_links
import notebook_text

HEADING = "Misconceptions"
BELIEF = re.compile(r"(?:[-*] )?\*\*([\"“].+?[\"”])\*\*\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Misconception:
    """A sentence that people believe, in its quotation marks, and why it is wrong."""

    belief: str
    reason: str


def misconceptions(notebook: pathlib.Path) -> list[Misconception]:
    """The blocks of the section that begin with a sentence in bold quotation marks; what stands before the first of them is left out."""
    text = re.sub(r"\n(?=[-*] \*\*[\"“])", "\n\n", notebook_text.section(notebook, HEADING))
    found: list[Misconception] = []
    for block in notebook_text.paragraphs(text):
        if begun := BELIEF.fullmatch(block):
            found.append(Misconception(begun[1], re.sub(r"\n  ", "\n", begun[2])))
        elif found:
            found[-1] = Misconception(found[-1].belief, f"{found[-1].reason}\n\n{block}")
    return found


def sections(root: pathlib.Path) -> list[tuple[str, str]]:
    """(heading, its text) for each chapter."""
    return [(notebook_text.title(notebook), _chapter(root, notebook)) for notebook in api_links.chapters(root).values()]


def _chapter(root: pathlib.Path, notebook: pathlib.Path) -> str:
    page = notebook.relative_to(root).with_suffix("").as_posix()
    said = [f"**{item.belief}** {notebook_text.moved(item.reason, page)}" for item in misconceptions(notebook)]
    return "\n\n".join([f":::{{container}} quiet\n{{ref}}`Where it stands in the chapter <misconceptions-{notebook.stem}>`\n:::", *said])


def totals(root: pathlib.Path) -> str:
    """The paragraph at the top, every number counted."""
    book = [misconceptions(notebook) for notebook in api_links.chapters(root).values()]
    return f"**{sum(map(len, book))} sentences** from {len(book)} chapters, each with the reason why it is wrong."
