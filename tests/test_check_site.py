"""The check of the built book goes red on each thing it looks for, and stays silent on a page that is right."""

import pathlib

import check_site
import pytest

GOOD = """<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>A page</title><style>html[data-theme=dark] body { background: #111; color: #eee } a, button { color: inherit; background: none } p { transition: color 9s }</style>
<script>function flip() { const d = document.documentElement.dataset; d.theme = d.theme === "light" ? "dark" : "light" }</script></head><body>
<main><article><h1 id="top">A page</h1><p>Text with <a href="#top">a link</a>.</p>
<button class="theme-switch-button" onclick="flip()">Theme</button>
<figure class="scrub"><img src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=" alt="one" width="9" height="9"><img alt="two" width="9" height="9"
src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=" hidden><input type="range" min="0" max="1" value="0" aria-label="Time" aria-valuetext="one"
oninput="this.closest('.scrub').querySelectorAll('img').forEach((m, i) => m.hidden = i != this.value); this.setAttribute('aria-valuetext', this.value)"></figure>
</article></main></body></html>"""
SEARCH = '<!DOCTYPE html><html lang="en"><head><title>Search</title></head><body><main><h1>Search</h1><ul id="search-results"><li>a page</li></ul></main></body></html>'
CODE = "<style>html[data-theme=dark] .many {{ color: #ddd }} html[data-theme=dark] .once {{ color: #333 }} .many {{ {} }}</style><pre>" + '<span class="many">code</span> ' * 9 + "</pre>"
BREAKS = {
    "request to another machine": ("Text with", '<script src="https://example.org/x.js"></script>Text with'),
    "console: an error": ("Text with", '<script>console.error("an error")</script>Text with'),
    "script error: thrown": ("Text with", '<script>throw Error("thrown")</script>Text with'),
    "404 for": ("Text with", '<img src="/missing.png" alt="missing">Text with'),
    "formula unrendered": ("Text with", '<span class="math">E = mc</span> Text with'),
    "formula raw": ("Text with", "Text with $$ and"),
    "formula wrong": ("Text with", '<mjx-container><g fill="red"></g></mjx-container> Text with'),
    "accessibility, light: color-contrast": ("<p>Text", '<p style="color: #ccc">Text'),
    "accessibility, dark: color-contrast": ("body { background: #111; color: #eee }", "body { background: #111; color: #333 }"),
    "accessibility, light: color-contrast (serious) at 3 places": ("<p>Text", CODE.format("color: #bbb") + "<p>Text"),
    "accessibility, dark: color-contrast (serious) at 1 places": ("<p>Text", CODE.format("") + '<pre>' + '<span class="once"> </span>' * 3 + '<span class="once">rare</span></pre><p>Text'),
    "accessibility, desktop: button-name": ("<p>Text", "<button></button><p>Text"),
    "accessibility, phone: link-in-text-block": ("</style>", "@media (max-width: 500px) { a { text-decoration: none; color: #a00 } p { color: #700 } }</style>"),
    "accessibility, phone: color-contrast": ("</style>", "@media (max-width: 500px) { p { color: #888; background: #777 } }</style>"),
    "accessibility, phone: button-name": ("<p>Text", '<style>@media (min-width: 500px) { .small { display: none } }</style><button class="small"></button><p>Text'),
    "wider than 768 px": ("<p>Text", '<p style="width: 900px">Text'),
    "wider than 390 px": ("<p>Text", '<p style="width: 500px">Text'),
    "a scrub strip shows frames": ("m.hidden = i != this.value", "m.hidden = i > 0"),
    "a scrub strip announces": ("this.setAttribute('aria-valuetext', this.value)", ""),
    "a scrub strip without its one slider": ('type="range"', 'type="number"'),
}
DEAD_BUTTON = ("d.theme === ", "true || ")


def build(folder: pathlib.Path, *pages: str, search: str = SEARCH) -> pathlib.Path:
    """A site of the given pages, page00.html, page01.html, ..., and a search page."""
    for i, page in enumerate(pages):
        (folder / f"page{i:02d}.html").write_text(page, encoding="utf-8")
    (folder / "index.html").write_text(GOOD, encoding="utf-8")
    (folder / "search.html").write_text(search, encoding="utf-8")
    return folder


def broken(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def look(folder: pathlib.Path) -> list[str]:
    found = check_site.check_in_browser(folder)
    if found is None:
        pytest.skip("no Chromium here")
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the check says of a good page followed by one page for each of BREAKS."""
    return look(build(tmp_path_factory.mktemp("site"), GOOD, *(broken(*change) for change in BREAKS.values())))


def test_pages_that_are_right_pass(found: list[str]) -> None:
    assert [line for line in found if line.startswith(("page00", "search"))] == []


@pytest.mark.parametrize(("page", "problem"), list(enumerate(BREAKS, start=1)))
def test_each_problem_is_found(found: list[str], page: int, problem: str) -> None:
    assert any(line.startswith(f"page{page:02d}.html: {problem}") for line in found), found


def test_a_dead_search_and_a_dead_theme_button_are_found(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_site, "SEARCH_TIMEOUT", 500)
    found = look(build(tmp_path, broken(*DEAD_BUTTON), search=SEARCH.replace("<li>a page</li>", "")))
    assert len(found) == 2 and "found nothing" in found[0] and "three clicks on the theme button" in found[1], found


def test_broken_links(tmp_path: pathlib.Path) -> None:
    links = '<a href="page00.html#top">good</a> <a href="gone.html">x</a> <a href="page00.html#gone">y</a> <a href="https://example.org">z</a>'
    assert list(check_site.broken_links(build(tmp_path, broken("Text", links)))) == [
        "page00.html: link to gone.html, which is not there",
        "page00.html: link to page00.html#gone, and no element has that id",
    ]


@pytest.mark.parametrize(("ci", "status"), [("1", 1), ("", 0)])
def test_without_a_chromium(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, ci: str, status: int) -> None:
    monkeypatch.setattr(check_site, "find_chromium", lambda playwright: None)
    monkeypatch.setattr("sys.argv", ["check_site.py", str(build(tmp_path, GOOD))])
    monkeypatch.setenv("CI", ci)
    assert check_site.main() == status
    assert "Browser check skipped: no Chromium" in capsys.readouterr().out


def test_pages_made_by_sphinx_are_left_out_and_a_folders_index_is_not(tmp_path: pathlib.Path) -> None:
    for page in ("index.html", "genindex.html", "_static/frame.html", "book/intro.html", "book/package/api/index.html"):
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / page).write_text("", encoding="utf-8")
    assert check_site.pages_of(tmp_path) == ["book/intro.html", "book/package/api/index.html"]
