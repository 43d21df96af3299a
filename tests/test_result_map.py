"""The map of results: every line that is drawn has its citations in proofs, read here a second time and otherwise; what is not so is an error."""

import json
import pathlib
import re

import api_links
import notebook_text
import proof_graph
import pytest
import result_map
import small_book
from bs4 import BeautifulSoup

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = (ROOT / "book/reference/map.md").read_text(encoding="utf-8")
BODY = result_map.BODY.search(PAGE)[1]
ITEMS, BANDS = result_map.entries(BODY)
LABELS = [item["label"] for item in ITEMS]
KNOWN = proof_graph.results(ROOT)
DRAWING = result_map.result_drawing(BODY, ROOT)
DRAWN = [(net.source.name, target.name) for net in DRAWING.nets for target in net.targets]


def second_reading() -> tuple[dict[str, str], dict[str, str]]:
    """(label -> its statement, label -> the text of its proofs), by a scan of lines that shares nothing with `proof_graph`."""
    statements: dict[str, str] = {}
    proofs: dict[str, str] = {}
    for notebook in api_links.chapters(ROOT).values():
        last, fence, what, text = "", "", "", ""
        for line in notebook_text.markdown(notebook).splitlines():
            opening = re.match(r"(:{3,}|`{3,})\{(prf:\w+|admonition)\}(.*)", line)
            if not fence and opening:
                fence, kind, title = opening.groups()
                what = "proof" if kind == "prf:proof" or (kind == "admonition" and "proof" in title.lower()) else kind
                text = ""
            elif fence and line.rstrip() == fence:
                label = re.search(r"^:label: (\S+)", text, re.MULTILINE)
                if what == "proof" and last:
                    proofs[last] = proofs.get(last, "") + text
                elif what.startswith("prf:") and label and what not in ("prf:remark", "prf:algorithm", "prf:example"):
                    last = label[1]
                    statements[last] = text
                fence = ""
            elif fence:
                text += line + "\n"
    return statements, proofs


STATEMENTS, PROOFS = second_reading()


def cites(user: str, used: str) -> bool:
    """Whether the proof of `user` names `used`, or a formula that stands in its statement."""
    names = [used, *re.findall(r"\((eq-[\w-]+)\)[ \t]*$", STATEMENTS[used], re.MULTILINE)]
    return any(re.search(rf"\{{(?:prf:ref|eq)\}}`(?:[^`]*<)?{re.escape(name)}>?`", PROOFS.get(user, "")) for name in names)


def test_the_two_readings_find_the_same_results() -> None:
    assert set(STATEMENTS) == set(KNOWN)
    assert len(PROOFS) > 80


@pytest.mark.parametrize(("used", "user"), DRAWN)
def test_a_line_has_its_citations_in_the_proofs(used: str, user: str) -> None:
    between = proof_graph.routes(KNOWN, LABELS)[used, user]
    chain = [user, *between, used]
    for later, earlier in zip(chain, chain[1:]):
        assert cites(later, earlier), f"the proof of {later} does not name {earlier}; the map draws a line from {used} to {user}"
    assert not set(between) & set(LABELS)


def test_every_citation_between_boxes_is_a_line_or_a_longer_way() -> None:
    after: dict[str, set[str]] = {}
    for start, end in DRAWN:
        after.setdefault(start, set()).add(end)

    def leads(start: str, end: str) -> bool:
        return end in after.get(start, ()) or any(leads(middle, end) for middle in after.get(start, ()))

    named = [(used, user) for used in LABELS for user in LABELS if used != user and cites(user, used)]
    assert len(named) >= 30
    assert not [pair for pair in named if not leads(*pair)]


def test_every_way_by_smaller_results_is_a_route() -> None:
    """What a proof reaches through the proofs of results without a box, by the second reading."""
    found = set()
    for user in LABELS:
        seen, waiting = {user}, [user]
        while waiting:
            label = waiting.pop()
            for used in [used for used in STATEMENTS if used not in seen and cites(label, used)]:
                seen.add(used)
                if used in LABELS:
                    found.add((used, user))
                else:
                    waiting.append(used)
    assert found == set(proof_graph.routes(KNOWN, LABELS))


def test_no_line_stands_for_what_a_longer_way_says() -> None:
    assert not [pair for pair in DRAWN if proof_graph.without_shortcuts(DRAWN) - {pair} == proof_graph.without_shortcuts(DRAWN)]
    assert proof_graph.without_shortcuts({("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d")}) == {("a", "b"), ("b", "c"), ("c", "d")}


def test_the_map_tells_its_story() -> None:
    """Few enough boxes for a page; three columns for three views; chapter 18 at the bottom, where each view arrives."""
    assert 25 <= len(LABELS) <= 40 and len(set(LABELS)) == len(LABELS)
    rows = {item["label"]: item["at"][1] for item in ITEMS}
    parts = {label: KNOWN[label].notebook.parent.name for label in LABELS}
    unity = [label for label in LABELS if parts[label] == "unity"]
    assert min(rows[label] for label in unity) > max(rows[label] for label in LABELS if label not in unity)
    arrives = {parts[start] for start, end in proof_graph.routes(KNOWN, LABELS) if end in unity}
    assert arrives >= {"ground", "variational", "score", "sde"}
    assert not [label for label in LABELS if not any(label in pair for pair in DRAWN)]
    assert len(LABELS) == 40 and "Forty boxes in three columns and fourteen rows" in PAGE and "Forty results" in PAGE
    assert (DRAWING.columns, DRAWING.rows) == (3, 14)


@pytest.mark.parametrize(("used", "user"), [pair for pair in DRAWN if cites(pair[1], pair[0])][::4])
def test_a_proof_that_no_longer_names_a_result_loses_its_line(used: str, user: str) -> None:
    notebook = KNOWN[user].notebook
    text = notebook_text.markdown(notebook)
    for name in (used, *re.findall(r"\((eq-[\w-]+)\)", STATEMENTS[used])):
        text = re.sub(rf"\{{(?:prf:ref|eq)\}}`(?:[^`]*<)?{name}>?`", "it", text)
    assert used in KNOWN[user].cites
    assert used not in proof_graph.of_text(text, notebook)[user].cites


CHAPTER = """:::{prf:lemma} First
:label: lem-first

$$ a = b $$ (eq-first)
:::

:::{prf:proof}
Of nothing.
:::

:::{prf:lemma} Second
:label: lem-second
By {prf:ref}`lem-first`, it is said, but this is a statement and no proof.
:::

:::{admonition} Proof of the second
:class: dropdown
By {eq}`eq-first`, and by {prf:ref}`what <thm-elsewhere>`.
:::

:::{admonition} A remark
That {prf:ref}`lem-third` helps is no part of a proof.
:::

:::{prf:theorem} Third
:label: lem-third
It is more than {prf:ref}`lem-first` says.
:::

:::{prf:proof}
By {prf:ref}`lem-second`.
:::
"""


def test_what_a_proof_cites() -> None:
    read = proof_graph.of_text(CHAPTER, pathlib.Path("99.ipynb"))
    assert {label: result.cites for label, result in read.items()} == {"lem-first": (), "lem-second": ("lem-first", "thm-elsewhere"), "lem-third": ("lem-second",)}
    assert proof_graph.routes(read, {"lem-first", "lem-third"}) == {("lem-first", "lem-third"): ("lem-second",)}
    assert proof_graph.routes(read, set(read)) == {("lem-first", "lem-second"): (), ("lem-second", "lem-third"): ()}


def test_a_label_that_no_chapter_has_is_an_error() -> None:
    with pytest.raises(ValueError, match="labels that no chapter has: thm-no-such"):
        result_map.result_drawing(BODY.replace("label: thm-elbo,", "label: thm-no-such,"), ROOT)


def test_a_box_above_what_it_uses_is_an_error() -> None:
    with pytest.raises(ValueError, match="would not lead down"):
        result_map.result_drawing(BODY.replace("label: thm-vlb, at: [0, 5]", "label: thm-vlb, at: [0, 0.5]").replace("at: [0, 4]", "at: [0, 5]"), ROOT)


def test_the_list_has_every_result_and_every_route() -> None:
    lines = result_map.result_list(BODY, ROOT).splitlines()
    assert len(lines) == len(LABELS)
    ways = proof_graph.routes(KNOWN, LABELS)
    for item, line in zip(ITEMS, lines):
        label = item["label"]
        assert line.startswith(f"- **{{prf:ref}}`{item['name']} <{label}>`**")
        uses, _, used_by = line.partition("Used by")
        for start, end in ways:
            assert end != label or f"<{start}>`" in uses
            assert start != label or f"<{end}>`" in used_by


MAP = """# Map

```{result-map}
:title: A map
:alt: Two boxes.
:caption: Both.

- {label: lem-first, at: [0, 0], name: The first, formula: "a_1 = b^2"}
- {label: lem-third, at: [0, 1], name: Third & last, formula: "c"}
```

```{result-list}
```
"""


@pytest.mark.parametrize(
    ("title", "text"),
    [("One posterior", "One posterior"), (r"At $\eta=1$ it is", "At η=1 it is"), (r"see only $x/\alpha$", "see only x/α"), ("up to $h^2$", "up to h²"), ("", "")],
)
def test_the_text_of_a_link_is_plain(title: str, text: str) -> None:
    assert result_map.plain(title) == text


def test_every_title_has_a_plain_text() -> None:
    assert not [label for label, result in KNOWN.items() if re.search(r"[$\\{}^]", result_map.plain(result.title))]
    with pytest.raises(ValueError, match="has no plain text"):
        result_map.plain(r"The $\frac12$")


def as_notebook(title: str, text: str) -> str:
    cells = [{"cell_type": "markdown", "id": title, "metadata": {}, "source": f"# {title}\n\n{text}"}]
    return json.dumps({"cells": cells, "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}}, "nbformat": 4, "nbformat_minor": 5})


def test_the_page_is_built_with_its_links(tmp_path: pathlib.Path) -> None:
    cut = CHAPTER.index(":::{prf:lemma} Second")
    pages = {
        "index.md": MAP + "\n```{toctree}\nbook/score/98_first\nbook/score/99_next\n```\n",
        "book/score/98_first.ipynb": as_notebook("98 One", CHAPTER[:cut]),
        "book/score/99_next.ipynb": as_notebook("99 Two", CHAPTER[cut:].replace("thm-elsewhere", "lem-first")),
        "_toc.yml": "chapters:\n- file: book/score/98_first\n- file: book/score/99_next\n",
    }
    site = small_book.plain(tmp_path, pages, ["myst_nb", "sphinx_proof", "result_map"])
    html = BeautifulSoup((site / "index.html").read_text(encoding="utf-8"), "html.parser")
    links = html.select("svg.grid-map a[href]")
    assert [link["href"] for link in links] == ["book/score/98_first.html#lem-first", "book/score/99_next.html#lem-third"]
    assert [link["aria-label"] for link in links] == ["The first, lemma in chapter 98", "Third & last, theorem in chapter 99"]
    assert [group["data-ends"] for group in html.select("svg.grid-map g.line")] == ["lem-first lem-third"]
    assert html.select_one("svg.grid-map title").get_text() == "A map" and html.select_one("figure.grid-map-figure figcaption").get_text() == "Both."
    first, third = (" ".join(item.get_text().split()) for item in html.select("div.result-list li"))
    assert first == "The first, chapter 98. Uses no other result of the map. Used by Third & last."
    assert third == "Third & last, chapter 99. Uses The first (by way of Second)."
