"""The glossary: every entry in both languages with a link that leads to its label, every definition of the chapters among them, and the Korean index."""

import pathlib
import re
from collections import Counter

import api_links
import korean
import notebook_text
import pytest
import small_book
from book_rules import defined_labels
from bs4 import BeautifulSoup

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = (ROOT / "book/reference/glossary.md").read_text(encoding="utf-8")
TERMS = korean.terms(SOURCE)
LINK = re.compile(r"\{(?:prf:ref|eq|ref|numref)\}`([\w-]+)` in chapter \{doc\}`(\d\d) </(book/[^>]+)>`\.$")
HANGUL = re.compile("[가-힣]")


def labels(notebook: pathlib.Path) -> set[str]:
    figures = re.findall(r'"figure":\s*\{[^{}]*"name":\s*"([^"]+)"', notebook.read_text(encoding="utf-8"))
    return defined_labels(notebook_text.markdown(notebook)) | set(figures)


CHAPTERS = {number: (path, labels(path)) for number, path in api_links.chapters(ROOT).items()}


def test_the_whole_page_is_read() -> None:
    assert len(TERMS) >= 140
    assert len(TERMS) == len(re.findall(r"^  \{ko\}`", SOURCE, re.MULTILINE))


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.english)
def test_an_entry_has_both_languages_a_sentence_and_a_link_that_resolves(term: korean.Term) -> None:
    assert re.match(r"[A-Za-z]", term.english) and term.korean
    assert all(HANGUL.search(word) for word in term.korean), term.korean
    link = LINK.search(term.text)
    assert link, f"{term.english} does not end with a link to a label and its chapter"
    label, number, page = link.groups()
    path, known = CHAPTERS[number]
    assert label in known, f"chapter {number} has no label {label}"
    assert page == path.relative_to(ROOT).with_suffix("").as_posix()
    sentence = re.sub(r"\{ko\}`[^`]+`(?: \(our translation\))?[,.]?", "", term.text[: link.start()]).strip()
    assert len(sentence.split()) >= 5 and sentence.endswith((".", "$.")), sentence


def test_no_word_stands_twice_and_the_entries_are_sorted() -> None:
    english = [term.english.lower() for term in TERMS]
    assert english == sorted(english)
    words = Counter(english) + Counter(word for term in TERMS for word in term.korean)
    assert not [word for word, count in words.items() if count > 1]


def test_every_definition_of_the_chapters_has_an_entry() -> None:
    definitions = {label for _, known in CHAPTERS.values() for label in known if label.startswith("def-")}
    linked = {match[1] for term in TERMS if (match := LINK.search(term.text))}
    assert len(definitions) >= 13
    assert not definitions - linked, f"definitions without an entry in the glossary: {sorted(definitions - linked)}"


@pytest.mark.parametrize(("word", "letter"), [("가능도", "ㄱ"), ("꼬리", "ㄱ"), ("나트", "ㄴ"), ("확산", "ㅎ"), ("힣", "ㅎ"), ("쌍", "ㅅ"), ("스코어", "ㅅ"), ("v 예측", "A–Z")])
def test_a_word_stands_under_its_first_consonant(word: str, letter: str) -> None:
    assert korean.initial(word) == letter


def test_the_index_has_every_word_once_in_the_order_of_a_dictionary() -> None:
    index = korean.index(TERMS)
    assert sorted(word for words in index.values() for word, _ in words) == sorted(word for term in TERMS for word in term.korean)
    assert list(index) == sorted(index, key="ㄱㄴㄷㄹㅁㅂㅅㅇㅈㅊㅋㅌㅍㅎA–Z".index)
    for letter, words in index.items():
        assert [word.replace(" ", "") for word, _ in words] == sorted(word.replace(" ", "") for word, _ in words)
        assert {korean.initial(word) for word, _ in words} == {letter}


def test_a_page_marks_the_language_and_the_index_leads_to_the_entries(tmp_path: pathlib.Path) -> None:
    page = "# Words\n\n```{glossary}\n:sorted:\n\nscore\n  {ko}`스코어`, {ko}`점수`. An arrow.\n\npath\n  {ko}`경로`. A pair.\n```\n\n```{korean-index}\n```\n"
    site = small_book.plain(tmp_path, {"index.md": page}, ["myst_parser", "korean"])
    html = BeautifulSoup((site / "index.html").read_text(encoding="utf-8"), "html.parser")
    assert [span.get_text() for span in html.select('dl.glossary dd span[lang="ko"]')] == ["경로", "스코어", "점수"]
    index = html.select_one("div.korean-index")
    assert [item.get_text(" ", strip=True) for item in index.select("li")] == ["경로 path", "스코어 score", "점수 score"]
    assert [link["href"] for link in index.select("li a")] == ["#term-path", "#term-score", "#term-score"]
    assert all(HANGUL.search(span.get_text()) or span.get_text() in korean.INITIALS for span in index.select('span[lang="ko"]'))
