"""The pages on other people's code: a link into a repository holds a commit, so that its line stays the line that was read."""

import pathlib
import re

import pytest
from test_book import BOOK, name, prose

READING = BOOK / "reading"
PAGES = sorted(path for path in READING.glob("*.ipynb"))
INTO_A_REPOSITORY = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/(?:blob|tree|raw)/[^\s)]+")
AT_A_COMMIT = re.compile(r"/(?:blob|tree|raw)/[0-9a-f]{40}(?:/|$)")


def moving(text: str) -> list[str]:
    """Links to a branch, whose lines move under the reader."""
    return [link for link in INTO_A_REPOSITORY.findall(text) if not AT_A_COMMIT.search(link)]


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_into_repositories_hold_a_commit(path: pathlib.Path) -> None:
    links = INTO_A_REPOSITORY.findall(prose(path))
    assert sum("#L" in link for link in links) >= 10, "functions are linked to their lines"
    assert not moving(prose(path))


def test_a_link_to_a_branch_is_found() -> None:
    commit = "https://github.com/o/r/blob/" + 40 * "a"
    assert moving("[f](https://github.com/o/r/blob/master/a.py#L1)") == ["https://github.com/o/r/blob/master/a.py#L1"]
    assert moving("[f](https://github.com/o/r/tree/abc1234)") == ["https://github.com/o/r/tree/abc1234"]
    assert not moving(f"[f]({commit}/a.py#L1), [r](https://github.com/o/r), [i](https://github.com/o/r/issues/5)")


def test_the_index_leads_to_every_page() -> None:
    index = (READING / "index.md").read_text(encoding="utf-8")
    assert not [path.stem for path in PAGES if f"<{path.stem}>`" not in index]
