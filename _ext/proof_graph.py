"""Which result is used in the proof of which: read from the proofs of the notebooks, where each names what it uses.

A proof is the `{prf:proof}` after a result, or a folded box whose title says "proof"; it cites by `{prf:ref}` and `{eq}`. A labeled formula inside of a
result stands for the result.
"""

import functools
import pathlib
import re
from collections.abc import Collection
from dataclasses import dataclass

import api_links
import notebook_text

KINDS = ("theorem", "proposition", "lemma", "corollary", "definition")
BOXES = tuple(f"prf:{kind}" for kind in KINDS)
CITED = re.compile(r"\{(?:prf:ref|eq)\}`(?:[^`<]*<)?([\w-]+)>?`")
FORMULA = re.compile(r"\$\$[ \t]*\((eq-[\w-]*\w)\)")


@dataclass(frozen=True)
class Proved:
    """A labeled result: where it stands and what its proof cites, in the order of the citations."""

    label: str
    kind: str
    title: str
    notebook: pathlib.Path
    cites: tuple[str, ...]


@functools.cache
def results(root: pathlib.Path) -> dict[str, Proved]:
    """Every labeled result of the chapters, by its label."""
    found: dict[str, Proved] = {}
    for notebook in api_links.chapters(root).values():
        found |= of_text(notebook_text.markdown(notebook), notebook)
    return found


def of_text(text: str, notebook: pathlib.Path) -> dict[str, Proved]:
    """The results of one chapter's Markdown."""
    boxes: list[tuple[str, str, str, str]] = []  # label, kind, title, statement
    proofs: dict[str, str] = {}
    for box in notebook_text.directives(text, (*BOXES, "prf:proof", "admonition")):
        if box.name in BOXES and "label" in box.options:
            boxes.append((box.options["label"], box.name.removeprefix("prf:"), box.argument, box.body))
        elif boxes and (box.name == "prf:proof" or (box.name == "admonition" and "proof" in box.argument.lower())):
            label = boxes[-1][0]
            proofs[label] = proofs.get(label, "") + box.body
    home = {formula: label for label, _, _, statement in boxes for formula in FORMULA.findall(statement)}
    cites = {label: tuple(dict.fromkeys(home.get(name, name) for name in CITED.findall(proofs.get(label, "")))) for label, *_ in boxes}
    return {label: Proved(label, kind, title, notebook, tuple(name for name in cites[label] if name != label)) for label, kind, title, _ in boxes}


def routes(known: dict[str, Proved], shown: Collection[str]) -> dict[tuple[str, str], tuple[str, ...]]:
    """{(used, user): the results between, none of them shown}: how the proof of each shown result comes to use another, by the shortest way."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for user in shown:
        frontier: list[tuple[str, tuple[str, ...]]] = [(user, ())]
        seen = {user}
        while frontier:
            label, between = frontier.pop(0)
            for used in known[label].cites if label in known else ():
                if used in seen:
                    continue
                seen.add(used)
                if used in shown:
                    found[used, user] = between
                else:
                    frontier.append((used, (*between, used)))
    return found


def without_shortcuts(edges: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """The edges that no longer way replaces: a -> c goes where a -> b -> c leads there too."""
    after: dict[str, set[str]] = {}
    for start, end in edges:
        after.setdefault(start, set()).add(end)

    @functools.cache
    def reached(start: str) -> frozenset[str]:
        return frozenset(after.get(start, ())).union(*(reached(end) for end in after.get(start, ())))

    return {(start, end) for start, end in edges if not any(end in reached(other) for other in after[start] if other != end)}
