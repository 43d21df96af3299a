"""A Sphinx extension: how long a notebook runs, from the measurements in `book/run_times.json` (`scripts/time_book.py` makes them).

    **Run time** {run-time}`45 s` on two CPU cores

says on the page what was measured, and leads to the table of all; whoever reads the notebook itself reads the number that is typed. A typed number
that is wrong by more than a factor of 1.5 (and five seconds) is a warning, and so an error. `{run-times}` is the table: each page's seconds. `{page-weights}` is a table of
what the built pages weigh, which is known, and filled in, when they are written.
"""

import html
import json
import pathlib
import re
import statistics
import sys
from typing import Any

from docutils import nodes
from made_pages import parsed
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

logger = logging.getLogger(__name__)
ROOT = pathlib.Path(__file__).resolve().parent.parent
WEIGHTS_HERE = "<!-- page weights -->"
RECORD = ROOT / "book/run_times.json"
TABLE = "book/reference/run_times"
FACTOR = 1.5
TYPED = re.compile(r"(?:(?P<minutes>\d+) min)? ?(?:(?P<seconds>\d+) s)?")


def measured() -> dict[str, dict[str, Any]]:
    """The record: a page's name (its notebook without the ending) -> seconds, day, machine."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    return {path.removesuffix(".ipynb"): entry for path, entry in record.items()}


def seconds_of(text: str) -> float:
    """The seconds in "45 s", "2 min" or "1 min 20 s"; ValueError for anything else."""
    match = TYPED.fullmatch(text.strip())
    if not text.strip() or match is None:
        raise ValueError(f"{text!r} is no run time; write it as 45 s, 2 min or 1 min 20 s")
    return 60 * int(match["minutes"] or 0) + int(match["seconds"] or 0)


def in_words(seconds: float) -> str:
    """Seconds as a reader wants them, rounded to five: "45 s", "2 min", "1 min 20 s". A time below five seconds is "5 s"."""
    rounded = max(5, 5 * round(seconds / 5))
    minutes, rest = divmod(rounded, 60)
    return " ".join([f"{minutes} min"] * (minutes > 0) + [f"{rest} s"] * (rest > 0))


def far_apart(typed: float, seconds: float) -> bool:
    """Wrong by more than the factor, and by more than the five seconds to which times are rounded."""
    return abs(typed - seconds) > 5 and not seconds / FACTOR <= typed <= seconds * FACTOR


class RunTime(SphinxRole):
    """`{run-time}`: the measured time of the page that it stands on."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        entry = measured().get(self.env.docname)
        self.env.note_dependency(str(RECORD))
        if entry is None:
            logger.warning("no run time of %s in book/run_times.json; measure it with scripts/time_book.py", self.env.docname, location=self.get_location())
            return [nodes.Text(self.text)], []
        if far_apart(seconds_of(self.text), entry["seconds"]):
            logger.warning("the run time %s is typed here and %.0f s were measured", self.text, entry["seconds"], location=self.get_location())
        said = nodes.inline("", in_words(entry["seconds"]), classes=["run-time"])
        if TABLE not in self.env.found_docs:
            return [said], []
        link = addnodes.pending_xref("", said, refdomain="std", reftype="doc", reftarget=f"/{TABLE}", refdoc=self.env.docname, refexplicit=True, refwarn=True)
        return [link], []


class RunTimes(SphinxDirective):
    """`{run-times}`: a table of all measured pages, in the order of the book, and their sum."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(RECORD))
        return parsed(self, table_text(measured()))


def table_text(times: dict[str, dict[str, Any]]) -> str:
    """The table as MyST; the machine and the day stand above it where all pages share them."""
    pages = [page for page in re.findall(r"file: (\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8")) if page in times]
    where = {f"{times[page]['machine']}, {times[page]['day']}" for page in pages}
    said = {page: "" if len(where) == 1 else f" {times[page]['machine']}, {times[page]['day']} |" for page in pages}
    rows = [f"| {{doc}}`/{page}` | {times[page]['seconds']:.0f} s |{said[page]}" for page in pages]
    total = f"| all | {in_words(sum(times[page]['seconds'] for page in pages))} |"
    if len(where) == 1:
        return "\n".join([f"Measured on {where.pop()}.", "", "| page | run time |", "|---|---|", *rows, total])
    return "\n".join(["| page | run time | measured on |", "|---|---|---|", *rows, f"{total} |"])


class PageWeights(SphinxDirective):
    """`{page-weights}`: on the web a place for the table; on paper, where a page has no weight, a sentence."""

    def run(self) -> list[nodes.Node]:
        on_paper = nodes.raw("", "The table is on the web page.", format="latex")
        return [nodes.raw("", WEIGHTS_HERE, format="html"), on_paper]


def fill_in_weights(app: Sphinx, exception: Exception | None) -> None:
    """Every page is written: put the table where a page has a place for it."""
    if exception or app.builder.format != "html":
        return
    site = pathlib.Path(app.outdir)
    places = [path for path in site.glob("book/**/*.html") if WEIGHTS_HERE in path.read_text(encoding="utf-8")]
    if not places:
        return
    sys.path.append(str(ROOT / "scripts"))
    from page_weight import weights

    table = weights_table(weights(site), {page: app.env.titles[page].astext() for page in app.env.titles})
    for path in places:
        path.write_text(path.read_text(encoding="utf-8").replace(WEIGHTS_HERE, table), encoding="utf-8")


def weights_table(found: dict[str, int], titles: dict[str, str]) -> str:
    """Pages and their megabytes as HTML, the heaviest first, and the median."""
    sizes = sorted(((size, page.removesuffix(".html")) for page, size in found.items() if page.removesuffix(".html") in titles), reverse=True)
    rows = [(html.escape(titles[page]), size) for size, page in sizes] + [("the median page", statistics.median(size for size, _ in sizes))]
    cells = "".join(f"<tr><td>{title}</td><td>{size / 1e6:.2f} MB</td></tr>" for title, size in rows)
    return f'<div class="pst-scrollable-table-container"><table class="table"><thead><tr><th>page</th><th>weight</th></tr></thead><tbody>{cells}</tbody></table></div>'


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_role("run-time", RunTime())
    app.add_directive("run-times", RunTimes)
    app.add_directive("page-weights", PageWeights)
    app.connect("build-finished", fill_in_weights)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
