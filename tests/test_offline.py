"""The book's Sphinx extension: which outputs it marks as checks, which scripts it keeps, what it mends in a page."""

from types import SimpleNamespace

import offline
import pytest
from docutils import nodes
from docutils.utils import new_document


@pytest.mark.parametrize(
    ("text", "classes", "marked"),
    [
        ("✓ eq-a: exact\n✓ eq-b: exact\n", ["output", "stream"], True),
        ("✓ eq-a: exact\na table\n", ["output", "stream"], False),
        ("✓ eq-a: exact\n", [], False),
        ("", ["output", "stream"], False),
    ],
)
def test_only_outputs_made_of_check_lines_are_marked(text: str, classes: list[str], marked: bool) -> None:
    document = new_document("page")
    block = nodes.literal_block(text, text, classes=classes)
    document += block
    offline.MarkChecks(document).run()
    assert ("checks" in block["classes"]) is marked


def test_a_page_keeps_each_script_once_and_none_of_thebe() -> None:
    def script(filename: str, body: str = "") -> SimpleNamespace:
        return SimpleNamespace(filename=filename, attributes={"body": body})

    context = {"script_files": [script("a.js"), script("a.js"), script("sphinx-thebe.js"), script("", "const thebe_selector = 1"), script("b.js")]}
    offline.tidy_page(None, "page", "page.html", context, None)
    assert [file.filename for file in context["script_files"]] == ["a.js", "b.js"]


def test_the_roles_and_ids_of_a_page_are_mended() -> None:
    body = (
        '<div role="list" class="citation-list"><div class="citation" role="doc-biblioentry"></div></div>'
        '<div class="proof admonition" id="proof"><p>Proof. By parts.</p></div><section id="proof-content"></section>'
    )
    context = {"script_files": [], "body": body}
    offline.tidy_page(None, "page", "page.html", context, None)
    assert context["body"] == (
        '<div class="citation-list"><div class="citation"></div></div>'
        '<div class="proof admonition"><p><span class="proof-word">Proof.</span> By parts.</p></div><section></section>'
    )


@pytest.mark.parametrize(
    ("line", "tied"),
    [
        (["if (", "$x", "), then ", "$y", ", and ", "$z", "."], ["($x),", "$y,", "$z."]),
        (["the ", "$y", "-axis and ", "$y", " again"], ["$y-axis"]),
        (["(", "$x", "(", "$y", ")"], ["($x", "($y)"]),
        (["$x"], []),
    ],
)
def test_a_formula_keeps_its_bracket_and_its_punctuation(line: list[str], tied: list[str]) -> None:
    document = new_document("page")
    document += nodes.paragraph("", "", *[nodes.math("", part) if part.startswith("$") else nodes.Text(part) for part in line])
    offline.KeepTogether(document).run()
    assert document.astext() == "".join(line)
    assert [span.astext() for span in document.findall(nodes.inline)] == tied


def test_the_blank_after_solution_to_is_not_part_of_the_link() -> None:
    context = {"script_files": [], "body": '<p>Solution to<a class="internal" href="#ex-a"> Exercise 1</a></p>'}
    offline.tidy_page(None, "page", "page.html", context, None)
    assert context["body"] == '<p>Solution to <a class="internal" href="#ex-a">Exercise 1</a></p>'
