"""The book on paper, as far as it can be seen without LaTeX: what moves and what is drawn has a printable form, boxes and folds are there, and the log is read."""

import pathlib
import re

import build_pdf
import latex_pages
import latex_pictures
import nbformat
import nbformat.v4 as v4
import numpy as np
import pytest
import yaml
from bs4 import BeautifulSoup
from execute_book import notebooks
from PIL import Image
from small_book import ROOT, build

from diffusion_core import plots

SHADES = [np.full((20, 40, 3), shade, dtype=np.uint8) for shade in range(0, 250, 20)]
STRIP = plots.scrub(SHADES, [f"t = {i}_{i}" for i in range(len(SHADES))], alt="A square", caption="It gets lighter & lighter.")
FILM = plots.animate(SHADES[:4], alt="A square gets lighter.")
WORDS = r"""
# A chapter

```{prf:theorem} A name with $x^2$
:label: thm-small
One is one.
```

```{prf:proof}
By looking, and by {eq}`eq-small`.
```

$$ 1 = 1 $$ (eq-small)

## Exercises

```{exercise} ★ A task
:label: ex-small
Think, as in {prf:ref}`thm-small`.
```

````{solution} ex-small
:class: dropdown
Thought. 확산 모형 is Korean.
````

TABLE

```{raw} html
<figure class="book-map"><svg viewBox="0 0 10 10" xmlns="http://www.w3.org/2000/svg"><defs><marker id="m" markerWidth="3" refX="1"/></defs>
<g class="map-box"><rect class="map-score" width="9" height="9"/></g></svg><figcaption>A drawing of 100 %.</figcaption></figure>
```
""".replace("TABLE", "\n".join(["| name | said |", "|---|---|", *["| one | " + "two " * 40 + "|"] * 31]))


def shown(element: plots.Element) -> nbformat.NotebookNode:
    output = v4.new_output("execute_result", {"text/html": element.html, "text/plain": repr(element)}, execution_count=1)
    return v4.new_code_cell("show()", outputs=[output], execution_count=1)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    hidden = v4.new_code_cell("print(7)", outputs=[v4.new_output("stream", name="stdout", text="printed and hidden\n")], metadata={"tags": ["hide-output"]})
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, "language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    notebook = v4.new_notebook(metadata=kernel, cells=[v4.new_markdown_cell(WORDS), shown(STRIP), shown(FILM), hidden])
    return build(tmp_path_factory.mktemp("paper"), {"book/intro.md": "# The book\n\nText.\n", "book/small.ipynb": nbformat.writes(notebook)}, builder="latex")


@pytest.fixture(scope="module")
def tex(paper: pathlib.Path) -> str:
    text = (paper / f"{latex_pages.TARGET}.tex").read_text(encoding="utf-8")
    return text[text.index(r"\begin{document}") :]


def frames(tex: str) -> list[tuple[str, str]]:
    return re.findall(r"\\bookframe\{[\d.]+\}\{(frame-\w+\.png)\}\{(.*?)\}", tex)


def test_a_strip_and_an_animation_become_their_frames(paper: pathlib.Path, tex: str) -> None:
    found = frames(tex)
    assert [label for _, label in found] == [rf"t = {i}\_{i}" for i in (0, 2, 5, 7, 10, 12)] + [""] * 4
    wanted = [*(SHADES[i] for i in (0, 2, 5, 7, 10, 12)), *SHADES[:4]]
    for (name, _), shade in zip(found, wanted, strict=True):
        assert np.abs(np.asarray(Image.open(paper / name).convert("RGB"), dtype=float) - shade).max() <= 4
    assert r"It gets lighter \& lighter. 6 of its 13 positions." in tex and "4 moments of the animation." in tex


def test_no_plain_text_stands_where_a_picture_is(tex: str) -> None:
    assert repr(FILM) not in tex and repr(STRIP) not in tex


def test_a_drawing_becomes_a_file_with_the_light_colors(paper: pathlib.Path, tex: str) -> None:
    name = re.search(r"\\bookdrawing\{(drawing-\w+)\.pdf\}", tex)[1]
    svg = (paper / f"{name}.svg").read_text(encoding="utf-8")
    assert r"A drawing of 100 \%." in tex
    assert 'viewBox="0 0 10 10"' in svg and "markerWidth" in svg and "refX" in svg
    light = re.search(r"--box-definition-tint: (#\w+)", (ROOT / "book/_static/book.css").read_text(encoding="utf-8"))[1]
    assert re.search(rf"map-score \{{ fill: {light}", svg) and "var(" not in svg


def test_results_exercises_and_solutions_are_boxes_and_nothing_is_folded(tex: str) -> None:
    assert re.search(r"\\begin\{bookresult\}\{Theorem 1 .*A name with.*x\^2", tex)
    assert re.search(r"\\begin\{bookproof\}\s*\\sphinxAtStartPar\s*\\sphinxstylestrong\{Proof\.\} By looking", tex)
    assert re.search(r"\\booknumber\{1\}\\label\{[^{}]*ex-small\}[^{]*\\label\{exercise:ex-small\}\\begin\{bookexercise\}\{Exercise 1.*★ A task", tex)
    assert re.search(r"\\begin\{booksolution\}\{Solution to.*\}\s*\\sphinxAtStartPar\s*Thought\.", tex)
    assert "printed and hidden" in tex


def test_references_lead_to_labels_that_exist(tex: str) -> None:
    detokenized = re.sub(r"\\detokenize\{([^}]*)\}", r"\1", tex)
    asked = set(re.findall(r"\\(?:hyperref\[|ref\{|eqref\{|pageref\{)([^\]}]+)", detokenized))
    assert asked and asked <= set(re.findall(r"\\label\{([^}]+)\}", detokenized))


def test_a_long_table_wraps_its_lines(tex: str) -> None:
    assert re.search(r"\\begin\{longtable\}.*\\X\{8\}\{68\}.*\\X\{60\}\{68\}", tex)


def test_korean_words_get_a_korean_font(tex: str) -> None:
    assert r"\DUrole{hangul}{확산 모형} is Korean" in tex


MOVING = [(path, i, out.data["text/html"]) for path in notebooks() for i, cell in enumerate(nbformat.read(path, as_version=4).cells) for out in cell.get("outputs", []) if "text/html" in out.get("data", {})]


@pytest.mark.parametrize(("path", "cell", "html"), [pytest.param(*case, id=f"{case[0].stem}-{case[1]}") for case in MOVING])
def test_every_moving_picture_of_the_book_has_a_printable_form(path: pathlib.Path, cell: int, html: str, tmp_path: pathlib.Path) -> None:
    figure = BeautifulSoup(html, "html.parser").find("figure", class_=["scrub", "motion"])
    assert figure is not None, f"cell {cell} shows HTML that latex_pictures.py cannot print"
    found = frames(latex_pictures.motion_latex(figure, tmp_path))
    assert 2 <= len(found) <= latex_pictures.MOST_FRAMES
    sizes = [Image.open(tmp_path / name).size for name, _ in found]
    width, height = sizes[0]
    rows = -(-len(found) // latex_pictures.columns(width, height))
    assert width > 100 and set(sizes) == {sizes[0]}
    assert rows * (15.0 / latex_pictures.columns(width, height) * height / width + 0.8) < 22, "higher than a page"


LOG = """This is XeTeX
LaTeX Warning: Reference `eq-gone' on page 3 undefined on input line 7.
Overfull \\hbox (21.5pt too wide) in paragraph at lines 5--6
Overfull \\hbox (3.5pt too wide) in paragraph at lines 8--9
Missing character: There is no ☃ (U+2603) in font TeX Gyre Pagella/OT:script=latn!
book.tex:12: Undefined control sequence.
"""


def test_the_log_is_read() -> None:
    found = build_pdf.faults(LOG)
    assert found == [
        "error: Undefined control sequence.",
        "reference to nowhere: eq-gone",
        "no letter ☃ in the font TeX Gyre Pagella/OT",
        "21.5 points too wide: in paragraph at lines 5--6",
    ]
    assert build_pdf.faults("Overfull \\hbox (3.5pt too wide) in paragraph at lines 8--9\n") == []


def test_what_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", ["build_pdf.py"])
    assert build_pdf.main() == 1
    said = capsys.readouterr().err
    assert all(package in said for package in ("latexmk", "texlive-xetex", "librsvg2-bin", "fonts-nanum", "fonts-texgyre-math"))
    assert "apt-get install --no-install-recommends fonts-dejavu-core fonts-nanum" in said


def test_the_file_of_the_book_carries_its_title_and_authors() -> None:
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    macros = (ROOT / "_ext/latex_pages.tex").read_text(encoding="utf-8")
    assert f"pdftitle={{{settings['title']}}}" in macros and f"pdfauthor={{{settings['author']}}}" in macros
