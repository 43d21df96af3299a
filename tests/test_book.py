"""The book as a whole: every notebook obeys the rules of `book_rules.py`, and whatever a page points to is there."""

import pathlib
import re
from collections.abc import Iterator

import nbformat
import pytest
import yaml
from book_rules import CHAPTER_RULES, NOTEBOOK_RULES, RESULT, Rule, check_calls, code_cells, defined_labels, text_of
from execute_book import notebooks

ROOT = pathlib.Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
NOTEBOOKS = notebooks(BOOK)
CHAPTERS = [path for path in NOTEBOOKS if re.match(r"\d\d_", path.name)]
PAGES = NOTEBOOKS + sorted(BOOK.rglob("*.md"))

CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
REFERENCE = re.compile(r"\{(?:ref|numref|eq|prf:ref)\}`(?:[^`<]*<)?([^`>]+)>?`")
DOCUMENT = re.compile(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


def name(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: pathlib.Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def prose(path: pathlib.Path) -> str:
    return text_of(read(path)) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")


def report(path: pathlib.Path, findings: list[str]) -> None:
    """Fail with one line a finding and no traceback: the reader of this message edits chapters."""
    if findings:
        pytest.fail("\n".join(f"{name(path)}: {finding}" for finding in findings), pytrace=False)


def toc_entries() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))

    def files(node: dict | list) -> Iterator[str]:
        for item in node if isinstance(node, list) else node.values():
            if isinstance(item, (dict, list)):
                yield from files(item)
        if isinstance(node, dict) and "file" in node:
            yield node["file"]

    return [toc["root"], *files(toc)]


def labels_of_book() -> set[str]:
    labels = set()
    for path in PAGES:
        labels |= defined_labels(prose(path))
        if path.suffix == ".ipynb":
            labels |= {cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for _, cell in code_cells(read(path))} - {None}
    return labels


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
@pytest.mark.parametrize("rule", NOTEBOOK_RULES, ids=lambda rule: rule.__name__)
def test_notebook(rule: Rule, path: pathlib.Path) -> None:
    report(path, list(rule(read(path))))


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
@pytest.mark.parametrize("rule", CHAPTER_RULES, ids=lambda rule: rule.__name__)
def test_chapter(rule: Rule, path: pathlib.Path) -> None:
    report(path, list(rule(read(path))))


def test_every_entry_of_the_table_of_contents_exists() -> None:
    missing = [entry for entry in toc_entries() if not any((ROOT / f"{entry}{end}").exists() for end in ("", ".md", ".ipynb"))]
    assert not missing, f"_toc.yml names pages that do not exist: {missing}"


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = {re.sub(r"\.(md|ipynb)$", "", entry) for entry in toc_entries()}
    absent = [name(path) for path in PAGES if name(path).rsplit(".", 1)[0] not in listed]
    assert not absent, f"not in _toc.yml: {absent}"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_and_citations_resolve(path: pathlib.Path) -> None:
    text = prose(path)
    known = set(re.findall(r"^@\w+\{([^,\s]+),", (BOOK / "references.bib").read_text(encoding="utf-8"), re.M))
    findings = [f"no reference {key.strip()!r} in references.bib" for keys in CITATION.findall(text) for key in keys.split(",") if key.strip() not in known]
    labels = labels_of_book()
    findings += [f"no label {label!r} in the book" for label in REFERENCE.findall(text) if label not in labels]
    targets = [(target, ("", ".md", ".ipynb")) for target in DOCUMENT.findall(text)]
    targets += [(target.split("#")[0], ("",)) for target in LINK.findall(text) + PICTURE.findall(text) if ":" not in target and not target.startswith("#")]
    for target, ends in targets:
        base = ROOT / target.lstrip("/") if target.startswith("/") else path.parent / target
        if not any(base.with_name(base.name + end).is_file() for end in ends):
            findings.append(f"no file {target!r}")
    report(path, findings)


def test_labels_are_unique() -> None:
    seen: dict[str, str] = {}
    for path in PAGES:
        for label in defined_labels(prose(path)):
            if label in seen:
                report(path, [f"label {label!r} is defined in {seen[label]} too"])
            seen[label] = name(path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_checks_name_results_that_exist(path: pathlib.Path) -> None:
    labels = labels_of_book()
    unknown = {label for _, cell in code_cells(read(path)) for label in check_calls(cell.source) if RESULT.fullmatch(label)} - labels
    report(path, [f"check() names {label}, which no page defines" for label in sorted(unknown)])
