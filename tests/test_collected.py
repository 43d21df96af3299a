"""The Sphinx extension of the pages made from the notebooks: how it reads a notebook, and a small book built with it."""

import pathlib
import re
import subprocess
import sys

import notebook_results
import notebook_text
import pytest
from bs4 import BeautifulSoup
from exercises_page import Exercise, exercises
from misconceptions_page import Misconception, misconceptions
from nbformat import v4, write
from small_book import ROOT, plain

PROOF = ":::{prf:proof}\nBy hand.\n\nTwice.\n:::"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{doc}`06 <06_ddpm>` and {doc}`../sde/13`", "{doc}`06 </book/score/06_ddpm>` and {doc}`/book/sde/13`"),
        ("{doc}`/book/intro`, {doc}`x </book/intro>`", "{doc}`/book/intro`, {doc}`x </book/intro>`"),
        ("[a](../sde/13.ipynb), [b](https://example.org), [c](#here)", "[a](/book/sde/13.ipynb), [b](https://example.org), [c](#here)"),
        ("$$\na=b\n$$ (eq-a)\n\nSee {eq}`eq-a` (eq-a).", "$$\na=b\n$$\n\nSee {eq}`eq-a` (eq-a)."),
    ],
)
def test_text_moves_to_another_page(text: str, shown: str) -> None:
    assert notebook_text.moved(text, "book/score/09_score") == shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("One. Two? Three", ["One.", "Two?", "Three"]),
        ("See eq. 3 of it. $a. B$ stays.\nSo does `a. B`.", ["See eq. 3 of it.", "$a. B$ stays.", "So does `a. B`."]),
        ("**Check.** The rest.", ["**Check.**", "The rest."]),
        ("At 0.5 it is 1.5 times. *Then* not.", ["At 0.5 it is 1.5 times.", "*Then* not."]),
    ],
)
def test_sentences(text: str, said: list[str]) -> None:
    assert notebook_text.sentences(text) == said


def test_a_directive_is_one_block_and_may_hold_another() -> None:
    text = f"Before.\n\n{PROOF}\n\nAfter.\n\n::::{{admonition}} Outer\n:class: tip\n\n:::{{prf:lemma}} Inner\n:label: lem-inner\n\nIt holds.\n:::\n::::"
    assert [block.split("\n")[0] for block in notebook_text.paragraphs(text)] == ["Before.", ":::{prf:proof}", "After.", "::::{admonition} Outer"]
    (inner,) = notebook_text.directives(text, {"prf:lemma"})
    assert (inner.argument, inner.options, inner.body) == ("Inner", {"label": "lem-inner"}, "It holds.")
    assert [found.name for found in notebook_text.directives(text, {"admonition", "prf:lemma"})] == ["admonition", "prf:lemma"]


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (f"{PROOF}\n\nIt is large. The check counts all of them. None is left out.", "The check counts all of them. None is left out."),
        (f"The check is easy.\n\n{PROOF}", ""),
        ("A theorem of someone. So the check is a table.", "A theorem of someone. So the check is a table."),
        ("Standard deviations add like the legs of a triangle.", ""),
        ("And in three dimensions:", "And in three dimensions:"),
        ("## Checks", ""),
        ("The check is here.\n\n| a | check |\n|---|---|", ""),
    ],
)
def test_what_the_chapter_says_before_a_check(before: str, said: str) -> None:
    cells = (notebook_text.Cell("markdown", "The check is far away.", ""), notebook_text.Cell("markdown", before, ""))
    helper = notebook_text.Cell("code", "x = 1", "")
    assert notebook_results.said_before((*cells, helper), 3) == said


def test_claims() -> None:
    lines = ["✓ a: |got - want| <= 1e-08", "✓ b, x: 3: |got - want| <= 0.1 |want|", "✓ c: |got - want| <= 5 standard errors", "✓ d: at most its bound"]
    assert notebook_results.claim(lines[1]) == "|got - want| <= 0.1 |want|"
    assert notebook_results.kinds_of_claims(lines) == {"tolerance": 2, "standard errors": 1, "below a bound": 1}


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Let $x$ be. Show that $x=1$. Check it.", ("derivation", "experiment")),
        ("Run two chains, and then show that they meet. How far apart?", ("derivation", "computation", "experiment")),
        ("Our `run` samples. Which is best?", ()),
        ("(a) Derive\n\n$$\na=b .\n$$\n\nThen compute it.", ("derivation", "computation")),
        ("It is a check of samples.", ()),
    ],
)
def test_an_exercise_says_its_kind(text: str, kinds: tuple[str, ...]) -> None:
    assert Exercise("ex-a", 1, "A", text, solved=True, runs=True).kinds == kinds


STATED = """# 01 A chapter

:::{prf:proposition} Sums of $x$
:label: prop-sum

For every $x$ {doc}`there <02_other>`

$$
x+x=2x .
$$ (eq-twice)
:::

The check adds.
"""
CHECKED = 'for x in (1.0, 2.0):\n    check(f"prop-sum, x = {x}", x + x, 2 * x, atol=1e-9)\ncheck_below("eq-twice", 1.0, 2.0)\nname = "prop-sum"\ncheck(name, 1, 1, atol=1)'
PRINTED = "✓ prop-sum, x = 1.0: |got - want| <= 1e-09\n✓ prop-sum, x = 2.0: |got - want| <= 1e-09\n✓ eq-twice: at most 2\n✓ the table: |got - want| <= 1\n"
REST = """## Misconceptions

First this.

**"Sums are hard."** They are easy: {prf:ref}`prop-sum`.

And short.

- **"Doubling is squaring."** Only
  for two.

## Exercises

:::{exercise} ★ Twice
:label: ex-01-twice

Let $x$ be a number. The loop is

    y = x

Show that

$$
2x=x+x
$$

{doc}`there <02_other>`.
:::

:::{solution-start} ex-01-twice
:class: dropdown
:::
"""
TWICE = REST.split(":label: ex-01-twice\n\n")[1].split("\n:::")[0]
END = """:::{solution-end}
:::

:::{exercise} ★★ Thrice
:label: ex-01-thrice

Compute $3x$.
:::

:::{solution} ex-01-thrice
:class: dropdown

$x+x+x$.
:::

## In the code

| here | `diffusion_core` |
|---|---|
| {prf:ref}`prop-sum`, {eq}`eq-twice` | `targets.v` of others |
| `prop-sum` | `targets.eps` |
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A book with one chapter and the three pages."""
    root = tmp_path_factory.mktemp("book")
    (root / "book").mkdir()
    (root / "book/reference").mkdir()
    checked = v4.new_code_cell(CHECKED, execution_count=1, outputs=[v4.new_output("stream", name="stdout", text=PRINTED)])
    solved = v4.new_code_cell("1 + 1", execution_count=2)
    cells = [v4.new_markdown_cell(STATED), checked, v4.new_markdown_cell(REST), solved, v4.new_markdown_cell(END)]
    write(v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}), root / "book/01_a.ipynb")
    (root / "book/02_other.md").write_text("# Other\n\n```{api-room} targets\n```\n", encoding="utf-8")
    pages = {"checks": "all-checks", "exercises": "all-exercises", "misconceptions": "all-misconceptions"}
    for page, directive in pages.items():
        (root / f"book/reference/{page}.md").write_text(f"# The {page}\n\n```{{{directive}}}\n```\n", encoding="utf-8")
    listed = ["book/01_a", "book/02_other", *(f"book/reference/{page}" for page in pages)]
    (root / "_toc.yml").write_text("".join(f"- file: {name}\n" for name in listed), encoding="utf-8")
    (root / "index.md").write_text("# A book\n\n```{toctree}\n" + "\n".join(listed) + "\n```\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def built(book: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str]:
    """The folder of its pages, and the warnings."""
    out = tmp_path_factory.mktemp("out")
    settings = {
        "extensions": ["myst_nb", "sphinx_design", "sphinx_proof", "sphinx_exercise", "api_pages", "collected"],
        "myst_enable_extensions": ["dollarmath", "colon_fence", "attrs_inline"], "nb_execution_mode": "off", "numfig": True, "nitpicky": True,
        "suppress_warnings": ["ref.doc"],  # the entries of the room lead to chapters that this book does not have
    }
    (out / "conf.py").write_text("\n".join(f"{key} = {value!r}" for key, value in settings.items()), encoding="utf-8")
    build = f"import sys; sys.path.insert(0, {str(ROOT / '_ext')!r}); from sphinx.cmd.build import main; sys.exit(main(sys.argv[1:]))"
    run = subprocess.run([sys.executable, "-c", build, "-q", "-c", str(out), "-d", str(out / "trees"), str(book), str(out / "html")], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return out / "html", run.stderr


def page(built: tuple[pathlib.Path, str], name: str) -> BeautifulSoup:
    return BeautifulSoup((built[0] / f"{name}.html").read_text(encoding="utf-8"), "html.parser")


def test_no_link_is_dead(built: tuple[pathlib.Path, str]) -> None:
    assert not [line for line in built[1].splitlines() if "/01_a" in line or "/reference/" in line]
    for name in ("book/01_a", "book/reference/checks", "book/reference/exercises", "book/reference/misconceptions"):
        for link in page(built, name).select("div.body a.reference.internal"):
            path, _, place = link["href"].partition("#")
            there = (built[0] / name).parent / path if path else built[0] / f"{name}.html"
            assert not place or BeautifulSoup(there.read_text(encoding="utf-8"), "html.parser").find(id=place), link


def test_the_page_of_checks(built: tuple[pathlib.Path, str]) -> None:
    checks = page(built, "book/reference/checks")
    assert [row["id"] for row in checks.select("details.result-row")] == ["row-prop-sum", "row-eq-twice"]
    row = checks.find(id="row-prop-sum")
    assert row.summary.get_text().split() == ["Sums", "of", r"\(x\)", "proposition,", "2", "lines"]
    links = [(link.get_text(), link["href"]) for link in row.select("a.reference.internal")]
    assert links == [
        ("Proposition 1", "../01_a.html#prop-sum"), ("its check in the text", "../01_a.html#lines-prop-sum"), ("there", "../02_other.html"),
        ("targets.v", "../02_other.html#diffusion_core.targets.v"),
    ]
    assert row.select_one(".statement .math") and not row.select(".statement .eqno")
    assert row.select_one(".words").get_text().strip() == "The check adds."
    assert row.select_one(".highlight-python pre").get_text() == 'check(f"prop-sum, x = {x}", x + x, 2 * x, atol=1e-9)\n'
    assert row.select_one(".check-lines pre").get_text().splitlines() == PRINTED.splitlines()[:2]
    assert checks.find(id="row-eq-twice").select_one(".check-lines pre").get_text().splitlines() == PRINTED.splitlines()[2:3]
    assert re.search(r"2 labeled results in 1 chapter: 1 proposition and 1 equation\. 3 lines of checks .* 2 compare two .* 1 state .* 1 more", checks.get_text())


def test_the_chapter_leads_to_the_pages(built: tuple[pathlib.Path, str]) -> None:
    chapter = page(built, "book/01_a")
    links = [(link.get_text(), link["href"]) for link in chapter.select("a.reference.internal") if "reference/" in link["href"] and "#" in link["href"]]
    assert links == [
        ("all checks", "reference/checks.html#row-prop-sum"), ("all checks", "reference/checks.html#row-eq-twice"),
        ("All misconceptions of the book", "reference/misconceptions.html#all-misconceptions"), ("All exercises by level", "reference/exercises.html#all-exercises"),
    ]
    assert "✓ prop-sum" in chapter.find(id="lines-prop-sum").get_text()


def test_exercises_and_misconceptions(book: pathlib.Path, built: tuple[pathlib.Path, str]) -> None:
    notebook = book / "book/01_a.ipynb"
    assert exercises(notebook) == [
        Exercise("ex-01-twice", 1, "Twice", TWICE, solved=True, runs=True),
        Exercise("ex-01-thrice", 2, "Thrice", "Compute $3x$.", solved=True, runs=False),
    ]
    assert misconceptions(notebook) == [
        Misconception('"Sums are hard."', "They are easy: {prf:ref}`prop-sum`.\n\nAnd short."), Misconception('"Doubling is squaring."', "Only\nfor two."),
    ]
    levels = page(built, "book/reference/exercises")
    assert [title.get_text().rstrip("¶#") for title in levels.select("h2")] == ["★ One star", "★★ Two stars", "★★★ Three stars"]
    assert [(link.get_text(), link["href"]) for link in levels.select("li a.reference.internal") if "ex-" in link["href"]] == [("Exercise 1", "../01_a.html#ex-01-twice"), ("Exercise 2", "../01_a.html#ex-01-thrice")]
    whole = levels.find("strong", string="Twice").find_parent("li")
    assert [part.name for part in whole.find_all(recursive=False)] == ["p", "p", "div", "p", "div", "p"]
    assert whole.select_one(".highlight pre").get_text() == "y = x\n" and whole.select_one("div.math") and not whole.select(".eqno")
    assert whole.select("p")[-1].a["href"] == "../02_other.html"
    assert page(built, "book/reference/misconceptions").find("a", string="Where it stands in the chapter")["href"] == "../01_a.html#misconceptions-01_a"


def test_a_box_that_states_nothing_is_named(tmp_path: pathlib.Path) -> None:
    box = ":::{prf:theorem} A title\n:label: thm-nothing\n:::"
    with pytest.raises(AssertionError, match="index.md:5.*the box thm-nothing is empty: write what it states"):
        plain(tmp_path, {"index.md": f"# A page\n\nBefore.\n\n{box}\n"}, ["myst_parser", "sphinx_proof", "collected"])
