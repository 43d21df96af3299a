"""How long a chapter takes to read: an estimate from what stands in it, with the rates below.

The rates are assumptions, for a reader who follows each line without a pencil: 200 words a minute, 20 seconds for a displayed formula and as much for a
figure, 2 seconds for a formula in the text and for a line of code. Exercises and their solutions are not counted.
"""

import functools
import json
import pathlib
import re
from dataclasses import dataclass

WORDS_A_MINUTE = 200
SECONDS = {"displayed": 20.0, "figures": 20.0, "inline": 2.0, "lines of code": 2.0}
NOT_READ = ("Exercises", "In the code", "Where this comes from and where it goes")
DISPLAYED = re.compile(r"\$\$.*?\$\$(?:[ \t]*\(eq-[\w-]+\))?", re.DOTALL)
INLINE = re.compile(r"(?<!\$)\$[^$\n]+\$(?!\$)")
PICTURES = ("image/png", "image/webp", "image/svg+xml", "image/jpeg")


@dataclass(frozen=True)
class Section:
    """A section of the second rank, or what stands before the first of them (with an empty heading), and what is in it."""

    heading: str
    counts: dict[str, int]

    @property
    def minutes(self) -> float:
        return self.counts["words"] / WORDS_A_MINUTE + sum(self.counts[kind] * seconds for kind, seconds in SECONDS.items()) / 60


@functools.cache
def sections(notebook: pathlib.Path) -> tuple[Section, ...]:
    """The sections of a chapter, in order."""
    found: list[tuple[str, dict[str, int]]] = [("", dict.fromkeys(("words", *SECONDS), 0))]
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            counts = found[-1][1]
            counts["lines of code"] += len(source.splitlines())
            counts["figures"] += any(kind in out.get("data", {}) for out in cell["outputs"] for kind in (*PICTURES, "text/html"))
            continue
        for i, part in enumerate(re.split(r"^## ", source, flags=re.MULTILINE)):
            if i:
                heading, _, part = part.partition("\n")
                found.append((heading.strip(), dict.fromkeys(("words", *SECONDS), 0)))
            counts = found[-1][1]
            counts["displayed"] += len(DISPLAYED.findall(part))
            text = DISPLAYED.sub(" ", part)
            counts["inline"] += len(INLINE.findall(text))
            counts["words"] += len(re.findall(r"[A-Za-zÀ-ÿ][\w'-]*", re.sub(r"\{[\w:]+\}`[^`]*`|`[^`]*`", " word ", INLINE.sub(" ", text))))
    return tuple(Section(heading, counts) for heading, counts in found)


def minutes(notebook: pathlib.Path, only: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> float:
    """Of the sections `only`, or of all but those that nobody reads in a row and those `without`."""
    known = {section.heading for section in sections(notebook)}
    unknown = {*only, *without} - known
    if unknown:
        raise ValueError(f"{notebook.name} has no section {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")
    if only:
        return sum(section.minutes for section in sections(notebook) if section.heading in only)
    return sum(section.minutes for section in sections(notebook) if section.heading not in (*NOT_READ, *without))

