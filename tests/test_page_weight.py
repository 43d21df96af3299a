"""What a page weighs: its HTML and the pictures that it shows, and nothing that all pages share."""

import pathlib

import page_weight
import pytest


def build(site: pathlib.Path) -> pathlib.Path:
    for name, content in {
        "book/a.html": '<img src="../_images/one.png"><img src="../_images/one.png"><img src="data:image/png;base64,AAAA"><img src="../_static/logo.svg">',
        "book/b.html": '<img src="https://example.org/x.png"><img src="../_images/two%20words.png">',
        "_images/one.png": "1" * 1000,
        "_images/two words.png": "2" * 3000,
        "_images/unused.png": "3" * 9000,
        "_static/logo.svg": "4" * 500,
        "index.html": "",
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(content, encoding="utf-8")
    return site


def test_a_page_is_its_html_and_each_of_its_pictures_once(tmp_path: pathlib.Path) -> None:
    site = build(tmp_path)
    own = {page: (site / page).stat().st_size for page in ("book/a.html", "book/b.html")}
    assert page_weight.weights(site) == {"book/a.html": own["book/a.html"] + 1000, "book/b.html": own["book/b.html"] + 3000}


@pytest.mark.parametrize(
    ("sizes", "problems"),
    [
        ([1.0, 1.4, 2.9], []),
        ([0.1, 0.1, 3.1], ["p2: 3.10 MB, 3.0 MB at most for a page"]),
        ([1.0, 1.6, 2.9], ["the median page weighs 1.60 MB, 1.5 MB at most"]),
        ([], []),
    ],
)
def test_the_limits(sizes: list[float], problems: list[str]) -> None:
    assert page_weight.too_heavy({f"p{i}": round(size * 1e6) for i, size in enumerate(sizes)}) == problems


def test_pages_made_by_sphinx_are_left_out_and_a_folders_index_is_not(tmp_path: pathlib.Path) -> None:
    for page in ("index.html", "genindex.html", "_static/frame.html", "book/intro.html", "book/package/api/index.html"):
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / page).write_text("", encoding="utf-8")
    assert page_weight.pages_of(tmp_path) == ["book/intro.html", "book/package/api/index.html"]
