"""Links into other people's repositories hold a commit or a release, so that a line stays the line that was read, and one commit a repository over the book."""

import pathlib
import re

import literature
import pytest
from test_book import BOOK, name, prose
from test_book import PAGES as EVERY_PAGE

READING = BOOK / "reading"
PAGES = sorted(path for path in READING.glob("*.ipynb"))
PLACES = [place for theme in literature.themes().values() for result in theme for place in result.elsewhere]
INTO_A_REPOSITORY = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/(?:blob|tree|raw)/[^\s)]+")
AT_A_COMMIT = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+)/(?:blob|tree|raw)/([0-9a-f]{40}|v\d+\.\d+\.\d+)(?:/|$)")
TWO_STATES = {"awjuliani/pytorch-diffusion"}  # its page compares them


def moving(text: str) -> list[str]:
    """Links to a branch, whose lines move under the reader."""
    return [link for link in INTO_A_REPOSITORY.findall(text) if not AT_A_COMMIT.search(link)]


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_into_repositories_hold_a_commit(path: pathlib.Path) -> None:
    links = INTO_A_REPOSITORY.findall(prose(path))
    assert sum("#L" in link for link in links) >= 10, "functions are linked to their lines"


@pytest.mark.parametrize("path", EVERY_PAGE, ids=name)
def test_no_page_links_to_a_branch(path: pathlib.Path) -> None:
    assert not moving(prose(path))


def commits(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for repository, commit in AT_A_COMMIT.findall(" ".join(INTO_A_REPOSITORY.findall(text))):
        found.setdefault(repository, set()).add(commit)
    return found


def test_the_book_links_one_commit_of_a_repository() -> None:
    table = "".join(f"https://github.com/{place.repository.name}/blob/{place.repository.at}/ " for place in PLACES)
    linked = commits(table + " ".join(map(prose, EVERY_PAGE)))
    assert len(linked) >= 10
    assert not {repository: at for repository, at in linked.items() if len(at) > 1 and repository not in TWO_STATES}


def test_a_link_to_a_branch_is_found() -> None:
    commit = "https://github.com/o/r/blob/" + 40 * "a"
    assert moving("[f](https://github.com/o/r/blob/master/a.py#L1)") == ["https://github.com/o/r/blob/master/a.py#L1"]
    assert moving("[f](https://github.com/o/r/tree/abc1234)") == ["https://github.com/o/r/tree/abc1234"]
    assert not moving(f"[f]({commit}/a.py#L1), [r](https://github.com/o/r), [i](https://github.com/o/r/issues/5)")
    assert not moving("[f](https://github.com/o/r/blob/v0.42.1/src/a.py#L1)")
    assert commits(f"[f]({commit}/a.py#L1), [g](https://github.com/o/r/blob/{40 * 'b'}/a.py)") == {"o/r": {40 * "a", 40 * "b"}}


def test_the_index_leads_to_every_page() -> None:
    index = (READING / "index.md").read_text(encoding="utf-8")
    assert not [path.stem for path in PAGES if f"<{path.stem}>`" not in index]
