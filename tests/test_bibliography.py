"""book/references.bib: every entry is cited in the book, every key stands once, and an entry says who, what, when and where."""

import re

import literature
import pytest
from test_book import BOOK, CITATION, PAGES, prose

BIBLIOGRAPHY = (BOOK / "references.bib").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^@(\w+)\{([^,\s]+),\n(.*?)^\}$", BIBLIOGRAPHY, re.M | re.S)
WHERE = {"article": "journal", "inproceedings": "booktitle", "book": "publisher", "misc": "howpublished"}


def cited(text: str) -> set[str]:
    return {key.strip() for keys in CITATION.findall(text) for key in keys.split(",")}


def missing(kind: str, body: str) -> list[str]:
    """Fields that are not there, and lines that are not one field: what BibTeX drops without a word."""
    fields = re.findall(r"^  (\w+) = \{.+\},$", body, re.M)
    return [field for field in ("author", "title", "year", WHERE[kind]) if field not in fields] + [
        line for line in body.splitlines() if not re.fullmatch(r"  \w+ = \{.+\},", line)
    ]


def test_every_entry_is_cited() -> None:
    used = cited("".join(map(prose, PAGES)) + literature.DATA.read_text(encoding="utf-8"))
    assert not sorted({key for _, key, _ in ENTRIES} - used)


def test_every_entry_is_read_and_no_key_stands_twice() -> None:
    keys = [key for _, key, _ in ENTRIES]
    assert len(keys) == len(set(keys)) == BIBLIOGRAPHY.count("@") > 100


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry[1])
def test_an_entry_says_who_what_when_and_where(entry: tuple[str, str, str]) -> None:
    kind, _, body = entry
    assert not missing(kind, body)


def test_a_lack_is_found() -> None:
    body = "  author = {A},\n  title = {T},\n  year = {2020},\n"
    assert missing("article", body) == ["journal"] and not missing("article", body + "  journal = {J},\n")
    assert missing("book", body + "  publisher = {P}\n") == ["publisher", "  publisher = {P}"]
    assert cited("{cite}`a, b` and {cite:t}`c`, not `d`") == {"a", "b", "c"}
