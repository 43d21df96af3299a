"""The check of the built book goes red on each thing it looks for, and stays silent on a page that is right."""

import pathlib

import check_site
import pytest
import site_visitor

GOOD = """<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>A page</title><style>html[data-theme=dark] body { background: #111; color: #eee } a, button { color: inherit; background: none } p { transition: color 9s }</style>
<script>addEventListener("beforeprint", () => document.documentElement.dataset.theme = "light"); function flip() { const d = document.documentElement.dataset; d.theme = d.theme === "light" ? "dark" : "light" }</script></head><body>
<main><article><h1 id="top">A page</h1><p>Text with <a href="#top">a link</a>.</p>
<button class="theme-switch-button" onclick="flip()">Theme</button>
<button class="search-button" onclick="document.querySelector('[type=search]').focus()">Search</button>
<form action="search.html"><input type="search" name="q" aria-label="The word"></form>
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
    "first content after": ("<title>", "<script>for (const t = Date.now(); Date.now() - t < 1500;);</script><title>"),
    "a mouse can click it and the keyboard cannot reach it: span.hand": ("<p>Text", '<span class="hand" style="cursor: pointer">Press</span><p>Text'),
    "a mouse can click it and the keyboard cannot reach it: a": ("<p>Text", '<a href="#top" tabindex="-1">Up</a><p>Text'),
    "a folded part stays closed": ("<p>Text", '<details><summary onkeydown="event.preventDefault()">More</summary>Folded.</details><p>Text'),
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
    monkeypatch.setattr(site_visitor, "SEARCH_TIMEOUT", 500)
    found = look(build(tmp_path, broken(*DEAD_BUTTON), search=SEARCH.replace("<li>a page</li>", "")))
    assert len(found) == 4 and all("found nothing" in line for line in found[::2]) and all("the theme button, pressed three times" in line for line in found[1::2]), found
    assert [line.startswith("from the folder: ") for line in found] == [False, False, True, True]


NEED_A_SERVER = {
    "console: ": '<script type="module" src="empty.js"></script>',
    "a picture is not loaded: dot": '<img src="/dot.svg" alt="dot">',
}


@pytest.mark.parametrize("problem", NEED_A_SERVER)
def test_what_needs_a_server_is_found(tmp_path: pathlib.Path, problem: str) -> None:
    (tmp_path / "empty.js").write_text("", encoding="utf-8")
    (tmp_path / "dot.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>', encoding="utf-8")
    found = look(build(tmp_path, broken("Text with", f"{NEED_A_SERVER[problem]}Text with")))
    assert any(line.startswith(f"from the folder: page00.html: {problem}") for line in found), found
    assert all(line.startswith("from the folder") for line in found), found


def test_a_trap_for_the_tab_key_is_found(tmp_path: pathlib.Path) -> None:
    trap = """<input aria-label="Trap" onkeydown="if (event.key === 'Tab') event.preventDefault()">"""
    found = look(build(tmp_path, broken("<p>Text", f"{trap}<p>Text")))
    assert len(found) == 1 and found[0].startswith("from the folder: page00.html: Tab reaches "), found


ON_PAPER = {
    "on paper details. stays folded: More": ("<p>Text", "<details><summary>More</summary>Folded.</details><p>Text"),
    "on paper nav.bd-sidebar-primary is printed": ("<p>Text", '<nav class="bd-sidebar-primary">Contents</nav><p>Text'),
    "on paper pre. is cut off": ("<p>Text", '<pre tabindex="0" style="width: 200px; overflow: auto">' + "long " * 60 + "</pre><p>Text"),
    "on paper the dark theme is printed": ('addEventListener("beforeprint"', 'addEventListener("never"'),
}


@pytest.mark.parametrize("problem", ON_PAPER)
def test_what_is_wrong_on_paper_is_found(tmp_path: pathlib.Path, problem: str) -> None:
    found = look(build(tmp_path, broken(*ON_PAPER[problem])))
    assert [line for line in found if line.startswith(f"from the folder: page00.html: {problem}")], found
    assert len(found) == 1, found


def test_the_pages_that_are_read_from_the_folder(tmp_path: pathlib.Path) -> None:
    build(tmp_path, "plain", "plain", GOOD, '<figure class="motion"></figure>', GOOD)
    assert site_visitor.pages_for_folder(tmp_path) == ["page00.html", "page02.html", "page03.html"]


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
