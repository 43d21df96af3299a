"""Each rule of `book_rules.py` passes a notebook that is right and goes red on one that breaks it."""

from collections.abc import Callable

import book_rules
import nbformat.v4 as v4
import pytest
from nbformat import NotebookNode

PROSE = """# 99 A chapter

## Derivation

:::{prf:proposition} A fact
:label: prop-fact

$$ a = b $$ (eq-fact)
:::

## Break it

## Misconceptions

## Exercises
"""
EXERCISE = """```{exercise} Derive it
:label: ex-NUMBER
Why?
```

```{solution} ex-NUMBER
:class: dropdown
Because.
```
"""
CHECKS = 'check("prop-fact", 1, 1, atol=1e-9)\ncheck("eq-fact", 1, 1, atol=1e-9)'
PASSED = "✓ prop-fact: |got - want| <= 1e-09\n✓ eq-fact: |got - want| <= 1e-09\n"


def good_notebook() -> NotebookNode:
    checked = v4.new_code_cell(CHECKS, execution_count=1, outputs=[v4.new_output("stream", name="stdout", text=PASSED)])
    checked.metadata.tags = ["nbval-check-output"]
    drawn = v4.new_code_cell("draw()", execution_count=2, outputs=[v4.new_output("display_data", data={"image/png": "aGk="})])
    drawn.metadata.mystnb = {"image": {"alt": "A curve falls."}}
    exercises = "\n".join(EXERCISE.replace("NUMBER", str(i)) for i in range(4))
    cells = [v4.new_markdown_cell(PROSE), checked, drawn, v4.new_markdown_cell(exercises), v4.new_markdown_cell("## In the code\n")]
    return v4.new_notebook(cells=cells)


def prose(old: str, new: str) -> Callable[[NotebookNode], None]:
    def change(nb: NotebookNode) -> None:
        for cell in nb.cells:
            if cell.cell_type == "markdown":
                cell.source = cell.source.replace(old, new)

    return change


def output(index: int, kind: str, **content: object) -> Callable[[NotebookNode], None]:
    return lambda nb: nb.cells[index].outputs.append(v4.new_output(kind, **content))


def put(**fields: object) -> Callable[[NotebookNode], None]:
    return lambda nb: nb.cells[1].update(fields)


def stdout(text: str) -> Callable[[NotebookNode], None]:
    return output(2, "stream", name="stdout", text=text)


BREAKS = [
    ("executed_in_order", "execution count None", put(execution_count=None)),
    ("executed_in_order", "execution count 7", put(execution_count=7)),
    ("no_error_or_stderr", "ZeroDivisionError", output(2, "error", ename="ZeroDivisionError", evalue="", traceback=[])),
    ("no_error_or_stderr", "stderr", output(2, "stream", name="stderr", text="a warning")),
    ("no_widget", "cell 2", output(2, "display_data", data={"application/vnd.jupyter.widget-view+json": {}})),
    ("no_widget", "metadata", lambda nb: nb.metadata.update(widgets={})),
    ("small_enough", "1.5 MB at most", output(2, "display_data", data={"image/png": "A" * 1_500_000})),
    ("alt_texts", "without an alt text", lambda nb: nb.cells[2].metadata.pop("mystnb")),
    ("alt_texts", "2 figures", output(2, "display_data", data={"image/webp": "aGk="})),
    ("alt_texts", "no alt attribute", output(2, "display_data", data={"text/html": "<img src='data:,'>"})),
    ("alt_texts", "a picture without", prose("## Break it", "![](a.png)\n\n## Break it")),
    ("alt_texts", ":alt:", prose("## Break it", "```{figure} a.png\nA caption\n```\n\n## Break it")),
    ("results_checked", "prop-fact is a result, and no check", put(source=CHECKS.splitlines()[1])),
    ("results_checked", "eq-fact has a check, and no stored", put(outputs=[v4.new_output("stream", text=PASSED.splitlines()[0])])),
    ("checks_compared", "not tagged", lambda nb: nb.cells[1].metadata.pop("tags")),
    ("exercises_solved", "3 exercises", prose(EXERCISE.replace("NUMBER", "3"), "")),
    ("exercises_solved", "has no solution", prose("{solution} ex-2", "{note} ex-2")),
    ("exercises_solved", "no :label:", prose(":label: ex-2\n", "")),
    ("exercises_solved", "must begin with ex-", prose("ex-2", "two")),
    ("exercises_by_level", "'Derive it' has 0 stars and follows one with 2", prose("Derive it\n:label: ex-2", "★★ Derive it\n:label: ex-2")),
    ("exercises_by_level", "has 1 stars and follows one with 2", lambda nb: [prose(f"Derive it\n:label: ex-{i}", f"{stars} Derive it\n:label: ex-{i}")(nb) for i, stars in enumerate(("★", "★★", "★", "★★★"))]),
    *[("all_sections", section, prose(f"## {section}", "## Other")) for section in book_rules.SECTIONS],
    ("code_on_a_screen", "26 lines", put(source="x = 1\n" * 26)),
    ("code_on_a_screen", "101 characters", put(source="x" * 101)),
    ("long_setup_folded", "11 lines of imports", put(source="x = 1\n" * 10 + "x = 1")),
    ("portable", "to_jshtml", put(source="animation.to_jshtml()")),
    ("portable", "an absolute path", put(source="load('/home/me/x.npz')")),
    ("portable", "a time stamp", stdout("2026-01-31 12:00")),
    ("portable", "a progress bar", stdout("\r 50%|##  | 1.2it/s]")),
    ("portable", "the time or the Python version", lambda nb: nb.cells[1].metadata.update(execution={})),
]


@pytest.mark.parametrize("rule", book_rules.NOTEBOOK_RULES + book_rules.CHAPTER_RULES, ids=lambda rule: rule.__name__)
def test_a_notebook_that_is_right_passes(rule: book_rules.Rule) -> None:
    assert list(rule(good_notebook())) == []


@pytest.mark.parametrize(("rule", "finding", "change"), BREAKS, ids=[f"{rule}: {finding}" for rule, finding, _ in BREAKS])
def test_a_notebook_that_breaks_a_rule_goes_red(rule: str, finding: str, change: Callable[[NotebookNode], None]) -> None:
    nb = good_notebook()
    change(nb)
    findings = list(getattr(book_rules, rule)(nb))
    assert len(findings) == 1 and finding in findings[0], findings


def test_every_rule_is_shown_to_fail() -> None:
    assert {rule.__name__ for rule in book_rules.NOTEBOOK_RULES + book_rules.CHAPTER_RULES} == {rule for rule, _, _ in BREAKS}


def test_labels_in_a_function_that_never_runs_do_not_count() -> None:
    nb = good_notebook()
    nb.cells[1].source = f"def never():\n    {CHECKS.splitlines()[0]}\n    {CHECKS.splitlines()[1]}"
    nb.cells[1].outputs = []
    assert len(list(book_rules.results_checked(nb))) == 2


def test_a_bracket_at_the_start_of_a_line_is_a_label_only_as_a_target():
    assert book_rules.defined_labels("(The other half is below.)\n\n(sec-target)=\n") == {"sec-target"}
