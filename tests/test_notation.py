"""The page of the notation against the chapters: every Greek letter that several chapters use is on it, and a letter is lent where the page says."""

import pathlib
import re

import api_links
import notebook_text
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = (ROOT / "book/notation.md").read_text(encoding="utf-8")
LENT = PAGE[PAGE.index("(lent-letters)=") : PAGE.index("## Reading the papers")]
ROWS = re.findall(r"^\| \$([^$]+)\$ \| (.+) \| (\d\d(?:, \d\d)*) \|$", LENT, re.MULTILINE)
CHAPTERS = api_links.chapters(ROOT)
GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi rho sigma varsigma tau upsilon phi varphi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell"
).split()
OFTEN = 3  # a letter that a chapter writes less often than this is explained beside it


def formulas(number: str) -> list[str]:
    return re.findall(r"\$\$.*?\$\$|(?<!\$)\$[^$\n]+\$(?!\$)", notebook_text.markdown(CHAPTERS[number]), re.DOTALL)


def uses(letter: str, number: str) -> int:
    pattern = re.escape(letter) + r"(?![A-Za-z])" if letter.startswith("\\") else rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])"
    return sum(len(re.findall(pattern, formula)) for formula in formulas(number))


def test_the_table_of_lent_letters_is_read_whole() -> None:
    assert len(ROWS) == LENT.count("\n| $") and len(ROWS) > 80


@pytest.mark.parametrize("letter", GREEK)
def test_a_greek_letter_of_several_chapters_is_explained(letter: str) -> None:
    users = [number for number in CHAPTERS if uses(f"\\{letter}", number) >= OFTEN]
    assert len(users) < 2 or re.search(rf"\\{letter}(?![A-Za-z])", PAGE), f"{letter} is used in chapters {', '.join(users)} and is not on the page"


@pytest.mark.parametrize(("letters", "meaning", "chapters"), ROWS, ids=[f"{row[0]} {row[2]}" for row in ROWS])
def test_a_letter_is_lent_where_the_page_says(letters: str, meaning: str, chapters: str) -> None:
    absent = [number for number in chapters.split(", ") for letter in letters.split(", ") if not uses(letter, number)]
    assert not absent, f"chapter {', '.join(absent)} does not write {letters} ({meaning})"


def test_each_lending_is_said_once() -> None:
    said = [(letters, meaning) for letters, meaning, _ in ROWS]
    assert len(said) == len(set(said))
