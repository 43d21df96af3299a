"""What the book's script does with a formula that is wider than its place: smaller first, and it scrolls when that would be too small."""

import pathlib

import pytest
from playwright.sync_api import Browser, Page

STATIC = pathlib.Path(__file__).resolve().parent.parent / "book" / "_static"
LETTER = 10  # pixels a letter of a formula at its full size
PHONE = {"width": 400, "height": 800}
FORMULA = '<mjx-container{}><mjx-math style="display:inline-block"><i style="display:inline-block;width:{}em;height:1em"></i></mjx-math></mjx-container>'


@pytest.fixture(scope="module")
def page(browser: Browser) -> Page:
    return browser.new_page(viewport=PHONE)


def show(page: Page, body: str) -> None:
    """An article 400 pixels wide in which an em of a formula is ten pixels."""
    page.set_viewport_size(PHONE)
    style = f"body {{ margin: 0; font: 20px monospace }} p {{ margin: 0 }} mjx-container {{ font-size: {LETTER}px }} mjx-container[display] {{ display: block }}"
    page.set_content(f'<html lang="en"><title>t</title><style>{style}</style><article class="bd-article">{body}</article></html>')
    page.add_style_tag(path=STATIC / "book.css")
    page.evaluate("() => { window.DOCUMENTATION_OPTIONS = {} }")
    page.add_script_tag(path=STATIC / "book.js")
    page.evaluate("() => fitFormulas()")


def looks(page: Page) -> dict[str, object]:
    return page.locator("mjx-container").evaluate(
        "e => ({width: e.firstElementChild.offsetWidth, scrolls: e.scrollWidth > e.clientWidth + 1, own_line: e.classList.contains('wide')})"
    )


@pytest.mark.parametrize("display", ["", ' display="true"'])
@pytest.mark.parametrize(
    ("ems", "width", "scrolls"),
    [(30, 300, False), (39, 390, False), (50, 399, False), (60, 399, False), (70, 700, True)],
)
def test_a_formula_is_set_smaller_before_it_scrolls(page: Page, display: str, ems: int, width: int, scrolls: bool) -> None:
    show(page, f"<p>{FORMULA.format(display, ems)}</p>")
    assert looks(page)["width"] == pytest.approx(width, abs=2)
    assert looks(page)["scrolls"] is scrolls
    assert looks(page)["own_line"] is (scrolls and not display)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_a_wider_window_gives_it_its_size_back(page: Page) -> None:
    show(page, f"<p>{FORMULA.format('', 70)}</p>")
    page.set_viewport_size({"width": 800, "height": 800})
    page.evaluate("() => fitFormulas()")
    assert looks(page) == {"width": 700, "scrolls": False, "own_line": False}


def test_what_is_tied_to_a_formula_stays_on_its_line(page: Page) -> None:
    show(page, f'<p>some words <span class="keep">({FORMULA.format("", 39)}),</span> and more</p>')
    top, bottom = (page.locator(".keep").bounding_box()[side] for side in ("y", "height"))
    assert looks(page)["width"] < 390 and top > 0 and bottom < 40
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_a_fold_that_opens_is_looked_at_then(page: Page) -> None:
    show(page, f"<details><summary>more</summary><p>{FORMULA.format('', 50)}</p></details>")
    page.evaluate("() => { document.querySelector('details').open = true }")
    assert looks(page)["width"] == 500
    page.evaluate("() => fitIn(document.querySelector('details'))")
    assert looks(page)["width"] == pytest.approx(399, abs=2)
