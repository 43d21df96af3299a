"""A Sphinx extension: reading paths with times that are computed when the book is built.

    ```{reading-path}
    - chapter: "06"
      only: [The picture, "Algorithm 1: train"]
      say: What to look for, in MyST.
      exercise: ex-06-last-step
    ```

is an ordered list: each step with its reading time (`reading_time`), the sections to read (`only`) or to skip (`without`), what the chapter's box asks for
and the path has not read (it is taken on trust, and said once), the exercise to do; at the end the sum, and how long its notebooks run. `{reading-times}` is
the table of all chapters. A section that does not exist is an error, and so is a chapter that comes before one which it needs.
"""

import pathlib
from typing import Any

import api_links
import reading_time
import run_times
import yaml
from docutils import nodes
from made_pages import inside, note_book
from result_map import docname, needs
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def in_words(minutes: float) -> str:
    """Rounded to five minutes: `25 min`, `2 h 10 min`."""
    rounded = max(5, 5 * round(minutes / 5))
    hours, rest = divmod(rounded, 60)
    return " ".join([f"{hours} h"] * (hours > 0) + [f"{rest} min"] * (rest > 0))


def steps(body: str, root: pathlib.Path) -> list[dict[str, Any]]:
    """The steps of a path with their notebook, their minutes and what each takes on trust; ValueError where a chapter comes before one that it needs."""
    chapters = api_links.chapters(root)
    found: list[dict[str, Any]] = []
    listed = yaml.safe_load(body)
    for i, step in enumerate(listed):
        notebook = chapters[step["chapter"]]
        wanted = needs(notebook, root)
        late = [other["chapter"] for other in listed[i + 1 :] if other["chapter"] in wanted]
        if late:
            raise ValueError(f"chapter {step['chapter']} needs {', '.join(late)}, which the path reads later")
        read = {other["chapter"] for other in listed[:i]}
        minutes = reading_time.minutes(notebook, tuple(step.get("only", ())), tuple(step.get("without", ())))
        found.append({**step, "notebook": notebook, "minutes": minutes, "trusted": sorted(set(wanted) - read)})
    return found


def path_text(body: str, root: pathlib.Path) -> str:
    """A path as MyST."""
    chapters = api_links.chapters(root)
    items, total, running = [], 0.0, 0.0
    said: set[str] = set()
    for step in steps(body, root):
        total += step["minutes"]
        running += run_seconds(step["notebook"], root)
        parts = [f"**{{doc}}`{docname(step['notebook'], root)}`**, {in_words(step['minutes'])}. {step['say'].strip()}"]
        if step.get("only"):
            parts.append(f"*Read*: {'; '.join(step['only'])}.")
        if step.get("without"):
            parts.append(f"*Skip*: {'; '.join(step['without'])}.")
        trusted = [name for name in step["trusted"] if name not in said]
        said.update(trusted)
        if trusted:
            parts.append("*On trust*: " + ", ".join(f"{{doc}}`{name} <{docname(chapters[name], root)}>`" for name in trusted) + ".")
        if step.get("exercise"):
            parts.append(f"*Do*: {{ref}}`{step['exercise']}`.")
        items.append("1. " + " ".join(parts))
    return "\n".join(items) + f"\n\nTogether about {in_words(total)} of reading. The notebooks run in {run_times.in_words(running)}."


def run_seconds(notebook: pathlib.Path, root: pathlib.Path) -> float:
    name = notebook.relative_to(root).with_suffix("").as_posix()
    measured = run_times.measured()
    if name not in measured:
        raise ValueError(f"no run time of {name} in book/run_times.json; measure it with scripts/time_book.py")
    return float(measured[name]["seconds"])


def table_text(root: pathlib.Path) -> str:
    """Every chapter: how long it reads and how long it runs."""
    rows = ["| chapter | reading | running |", "|---|---|---|"]
    for notebook in api_links.chapters(root).values():
        rows.append(f"| {{doc}}`{docname(notebook, root)}` | {in_words(reading_time.minutes(notebook))} | {run_times.in_words(run_seconds(notebook, root))} |")
    return "\n".join(rows)


class Times(SphinxDirective):
    has_content = True

    def text(self, root: pathlib.Path) -> str:
        return table_text(root)

    def run(self) -> list[nodes.Node]:
        root = note_book(self.env, run_times.RECORD)
        try:
            text = self.text(root)
        except ValueError as error:
            raise self.error(str(error)) from error
        return [inside(self, text, ["reading-path"])]


class Path(Times):
    def text(self, root: pathlib.Path) -> str:
        return path_text("\n".join(self.content), root)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("reading-path", Path)
    app.add_directive("reading-times", Times)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
