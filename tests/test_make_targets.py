"""What the pages for newcomers say of make is what the Makefile has: no target that is not there, none that no page names, all of them in `make help`."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, re.M))
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tests/mutation/README.md", "benchmarks/README.md", *(path.relative_to(ROOT).as_posix() for path in (ROOT / "book").rglob("*.md"))]
NAMED = re.compile(r"(?:`|^|# |\b[A-Z_]+=\S+ |\()make ([a-z]+)\b(?=[` ,:;)]|$)", re.M)


def named(page: str) -> set[str]:
    return set(NAMED.findall((ROOT / page).read_text(encoding="utf-8")))


def test_every_target_stands_in_the_help() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M)
    assert phony and set(phony[1].split()) == TARGETS


def test_no_page_names_a_target_that_is_not_there() -> None:
    wrong = {page: unknown for page in PAGES if (unknown := named(page) - TARGETS)}
    assert not wrong


def test_the_readme_or_the_guide_names_every_target() -> None:
    assert TARGETS - named("README.md") - named("CONTRIBUTING.md") == set()
