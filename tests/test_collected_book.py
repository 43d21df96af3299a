"""The pages made from the notebooks hold all that the notebooks hold. What that is, is collected here a second time, by the rules of `book_rules.py`."""

import functools
import pathlib
import re
from collections import Counter

import api_names
import checks_page
import exercises_page
import misconceptions_page
import notebook_results
import pytest
from book_rules import EXERCISE_START, RESULT, code_cells, defined_labels, text_of
from test_book import CHAPTERS, CITATION, DOCUMENT, NOTEBOOKS, REFERENCE, ROOT, labels_of_book, name, read, report

MOST_EXERCISES = 6
ROW = re.compile(r"^:{8}\{dropdown\} [^\n]*\n:name: row-(\S+)\n(.*?)^:{8}$", re.MULTILINE | re.DOTALL)
LINES = re.compile(r"^~~~~~\{code-block\} text\n:class: check-lines\n(.*?)\n~~~~~$", re.MULTILINE | re.DOTALL)
STATIC_CODE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})(?!\{(?:exercise|solution))[^\n]*$|\{code(?:-block|-cell)?\}", re.MULTILINE)
ABOVE = r"(?<!from )\babove(?=[.,;)]|$| \{)|\b(?:as|table|figure|runs?|picture|printed|measured|seen|shown|said) above\b|\b(?:this|the last|the next|the previous) (?:chapter|section)\b"
LEANS_BACK = re.compile(ABOVE)
LEANS = re.compile(f"{ABOVE}|{ABOVE.replace('above', 'below')}")
SOLUTION = re.compile(r"\{solution-start\}[ \t]*(\S+)(.*?)\{solution-end\}", re.DOTALL)


@functools.cache
def stored_lines(path: pathlib.Path) -> list[str]:
    """The lines of passed checks in the stored outputs of a notebook."""
    streams = (out.text for _, cell in code_cells(read(path)) for out in cell.outputs if out.output_type == "stream" and out.name == "stdout")
    return [line for text in streams for line in text.splitlines() if line.startswith("✓")]


@functools.cache
def rows(path: pathlib.Path) -> dict[str, str]:
    """Label -> what stands in its row, of the part of the page about this notebook."""
    return dict(ROW.findall(checks_page.section(ROOT, path)))


def test_the_page_has_a_part_for_each_notebook_with_a_result() -> None:
    wanted = [path for path in NOTEBOOKS if any(map(RESULT.fullmatch, defined_labels(text_of(read(path)))))]
    assert Counter(checks_page.pages(ROOT)) == Counter(wanted)
    assert len(checks_page.sections(ROOT)) == len(wanted)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_every_labeled_result_has_its_row_and_all_its_lines(path: pathlib.Path) -> None:
    labels = {label for label in defined_labels(text_of(read(path))) if RESULT.fullmatch(label)}
    shown = rows(path)
    findings = [f"{label} has no row on the page of checks" for label in sorted(labels - set(shown))]
    findings += [f"the page of checks has a row for {label}, which the page does not define" for label in sorted(set(shown) - labels)]
    for label in sorted(labels & set(shown)):
        listed = Counter(line for block in LINES.findall(shown[label]) for line in block.splitlines())
        stored = Counter(line for notebook in NOTEBOOKS for line in stored_lines(notebook) if label in RESULT.findall(line))
        findings += [f"{label}: no stored output says {line!r}" for line in listed - stored]
        findings += [f"{label}: its row lacks {line!r}" for line in stored - listed]
        if not listed:
            findings.append(f"{label}: its row shows no check")
    report(path, findings)


@functools.cache
def book_labels() -> set[str]:
    return labels_of_book()


@functools.cache
def levels() -> str:
    return "\n".join(part for _, part in exercises_page.sections(ROOT))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_no_link_of_a_row_is_dead(path: pathlib.Path) -> None:
    book = book_labels()
    checked = {f"lines-{label}" for line in stored_lines(path) for label in RESULT.findall(line)}
    cited = set(re.findall(r"^@\w+\{([^,\s]+),", (ROOT / "book/references.bib").read_text(encoding="utf-8"), re.M))
    methods = {f"{entry.path}.{method.name}" for entry in api_names.all_entries() for method in api_names.methods(entry)}
    findings = []
    for label, row in rows(path).items():
        targets = REFERENCE.findall(row)
        findings += [f"{label}: no label {target!r}" for target in targets if target not in book | checked]
        if label not in targets or f"lines-{label}" not in targets:
            findings.append(f"{label}: the row does not lead to the result and to its check")
        findings += [f"{label}: no page {target!r}" for target in DOCUMENT.findall(row) if not any((ROOT / f"{target.lstrip('/')}{end}").exists() for end in (".md", ".ipynb"))]
        findings += [f"{label}: no reference {key.strip()!r}" for keys in CITATION.findall(row) for key in keys.split(",") if key.strip() not in cited]
        findings += [f"{label}: no public name {target!r}" for target in re.findall(r"<diffusion_core\.([\w.]+)>", row) if target not in {*api_names.by_path(), *api_names.rooms(), *methods}]
    report(path, findings)


def test_totals_are_counted() -> None:
    labels = [label for path in NOTEBOOKS for label in defined_labels(text_of(read(path))) if RESULT.fullmatch(label)]
    lines = [line for path in NOTEBOOKS for line in stored_lines(path)]
    named = sum(bool(RESULT.search(line)) for line in lines)
    kinds = Counter(label.split("-")[0] for label in labels)
    numbers = [int(number.replace(",", "")) for number in re.findall(r"(?<![\w-])[\d,]+(?= )", checks_page.totals(ROOT))]
    assert numbers[:1] == [len(labels)] and {named, len(lines) - named, *kinds.values(), len(CHAPTERS)} <= set(numbers)
    claims = [sum(end in line for line in lines if RESULT.search(line)) for end in ("5 standard errors", ": at most ")]
    assert {named - sum(claims), *claims} <= set(numbers)


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_exercises_have_levels_and_solutions_whose_code_runs(path: pathlib.Path) -> None:
    notebook = read(path)
    text, found = text_of(notebook), exercises_page.exercises(path)
    findings = [f"{len(found)} of {len(EXERCISE_START.findall(text))} exercises are on the page by level"] if len(found) != len(EXERCISE_START.findall(text)) else []
    if len(found) > MOST_EXERCISES:
        findings.append(f"{len(found)} exercises, at most {MOST_EXERCISES} expected")
    for exercise in found:
        if exercise.stars not in exercises_page.LEVELS:
            findings.append(f"{exercise.label}: its title begins with no level, ★, ★★ or ★★★")
        elif levels().count(f"{{ref}}`{exercise.label}`") != 1:
            findings.append(f"{exercise.label} is not on the page by level, once")
        if not exercise.solved:
            findings.append(f"{exercise.label} has no solution")
    for label, solution in SOLUTION.findall(text):
        opened = solution.split("\n", 3)[-1].removesuffix(solution.rsplit("\n", 1)[-1])  # without what closes its beginning and opens its end
        findings += [f"{label}: code that does not run in its solution: {block[0].strip()}" for block in STATIC_CODE.finditer(opened) if block[0].strip("`~ \t")]
    if sum(exercise.runs for exercise in found) < len(found) - 1:
        findings.append("more than one solution has no code that runs")
    report(path, findings)


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_every_misconception_is_collected(path: pathlib.Path) -> None:
    section = text_of(read(path)).split("## Misconceptions\n")[-1].split("\n## ")[0]
    believed = re.findall(r"^(?:[-*] )?\*\*([\"“].+?[\"”])\*\*", section, re.MULTILINE)
    listed = misconceptions_page.misconceptions(path)
    assert believed and [item.belief for item in listed] == believed
    shown = dict(misconceptions_page.sections(ROOT))
    part = next(text for heading, text in shown.items() if heading.startswith(path.name[:2]))
    words = re.sub(r"\s+", "", "".join(re.findall(r"[A-Za-z ]{12,}", section[section.index(believed[0]) :])))
    assert all(item.reason for item in listed) and re.sub(r"\s+", "", "".join(re.findall(r"[A-Za-z ]{12,}", part))).endswith(words[-200:])
    assert not defined_labels(part)


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_what_is_collected_stands_alone(path: pathlib.Path) -> None:
    """What leads to the text around it has no sense on another page. A statement may point down, to its own formulas."""
    collected = [(item.belief, LEANS, f"{item.belief} {item.reason}") for item in misconceptions_page.misconceptions(path)]
    collected += [(exercise.label, LEANS, exercise.text) for exercise in exercises_page.exercises(path)]
    collected += [(result.label, LEANS_BACK, result.statement) for result in notebook_results.results(path)]
    report(path, [f"{what} leans on the text around it: {found[0]!r}" for what, leans, text in collected for found in leans.finditer(" ".join(text.split()))])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It is of first order (measured above).", "measured above"),
        ("compared with the 1.6 out of 8 above.", "above"),
        ("the first row of the table above {numref}`fig-06-bias`", "table above"),
        ("in the runs above the correlation is 0.97", "runs above"),
        ("by {prf:ref}`prop-sum` below {prf:ref}`prop-affine`", "below"),
        ("six times the bound above, and not", "above"),
        ("is what this chapter left out", "this chapter"),
        ("with $z_t$ as above", "as above"),
        ("printed below {prf:ref}`prop-ddpm-kl`", "printed below"),
        ("all eigenvalues above $-\\frac12$", None),
        ("Its loss stays below that, and the bound approaches it from above.", None),
        ("It is neither above nor below: unbiased.", None),
    ],
)
def test_words_that_lean_on_the_text_around(text: str, found: str | None) -> None:
    match = LEANS.search(text)
    assert (match[0] if match else None) == found
