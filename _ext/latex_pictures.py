"""What moves or is drawn in a page of the web, as LaTeX: used by `latex_pages.py`.

Paper cannot move: an animation and a scrub strip become a few of their frames side by side. A page's own drawing (SVG) becomes a picture file.
"""

import base64
import hashlib
import io
import pathlib
import re
from typing import Any
from xml.etree import ElementTree

from bs4 import BeautifulSoup, Tag
from docutils import nodes
from PIL import Image, ImageSequence
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.texescape import escape

STYLE = pathlib.Path(__file__).resolve().parent.parent / "book/_static/book.css"
MOST_FRAMES = 6
PAGE_WIDTH, PAGE_HEIGHT, LABEL_HEIGHT = 15.0, 20.0, 0.8  # centimeters
INK = "#1b1f24"
SVG = "http://www.w3.org/2000/svg"
ElementTree.register_namespace("", SVG)
VARIABLE = re.compile(r"var\((--[\w-]+)(?:,\s*([^)]+))?\)")
COLOR_VARIABLE = re.compile(r"(--[\w-]+):\s*(#[0-9a-fA-F]{3,8});")


def frames_of(figure: Tag) -> list[tuple[Image.Image, str]]:
    """The frames of an animation or a scrub strip that go to paper, each with its label: as many as fit a page, first and last among them."""
    pictures = figure.find_all("img")
    most = room(*decoded(pictures[0]).size)
    if "scrub" in figure["class"]:
        return [(decoded(picture), str(picture["data-label"])) for picture in evenly(pictures, most)]
    return [(frame, "") for frame in evenly([frame.copy() for frame in ImageSequence.Iterator(decoded(pictures[0]))], most)]


def decoded(picture: Tag) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(str(picture["src"]).partition(",")[2])))


def evenly(items: list[Any], most: int) -> list[Any]:
    """`most` of the items at even distances, both ends among them; all of them when there are no more."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def columns(width: int, height: int) -> int:
    """How many frames stand side by side: wide ones have the page to themselves."""
    return 1 if width > 2.6 * height else 2 if width > 1.3 * height else 3


def room(width: int, height: int) -> int:
    """How many frames of this size have room on one page: three rows of wide ones, six frames at most."""
    side = columns(width, height)
    row = PAGE_WIDTH / side * height / width + LABEL_HEIGHT
    return min(MOST_FRAMES, side * max(2, int(PAGE_HEIGHT / row)))


def motion_latex(figure: Tag, folder: pathlib.Path) -> str:
    """An animation or a strip as rows of frames, whose files are written into `folder`, and its caption."""
    frames = frames_of(figure)
    side = columns(*frames[0][0].size)
    cells = []
    for frame, label in frames:
        content = io.BytesIO()
        frame.convert("RGB").save(content, format="PNG")
        name = f"frame-{hashlib.sha256(content.getvalue()).hexdigest()[:16]}.png"
        (folder / name).write_bytes(content.getvalue())
        cells.append(f"\\bookframe{{{0.96 / side:.3f}}}{{{name}}}{{{escape(label)}}}")
    rows = ["\\hfill ".join(cells[i : i + side]) for i in range(0, len(cells), side)]
    caption = figure.find("figcaption")
    total = len(figure.find_all("img")) if "scrub" in figure["class"] else 0
    shown = f"{len(frames)} of its {total} positions." if total > len(frames) else "" if total else f"{len(frames)} moments of the animation."
    text = " ".join(filter(None, [caption.get_text(" ", strip=True) if caption else "", shown]))
    return "\\begin{bookframes}\n" + "\\\\[1ex]\n".join(rows) + f"\n\\bookcaption{{{escape(text)}}}\n\\end{{bookframes}}\n"


def light_style(css: str) -> str:
    """The rules of the book's style sheet that a drawing can use: colors of the light theme put in, and not bound to the page around it."""
    light = css[css.index('html[data-theme="light"]') :]
    colors = dict(COLOR_VARIABLE.findall(light[: light.index("}")]))
    rules = re.findall(r"^\.bd-article ((?:[^{}]*\b(?:rect|path|text|circle|ellipse|line|polygon|svg)\b)[^{}]*\{[^{}]*\})", css, re.M)
    return VARIABLE.sub(lambda match: colors.get(match[1], match[2] or "currentColor"), "\n".join(rules)).replace(".bd-article ", "")


def drawing_latex(html: str, folder: pathlib.Path) -> str:
    """A page's own drawing: an SVG file in `folder` with the light theme's colors in it, to be converted to the PDF that the text includes."""
    drawn = re.search(r"<svg\b.*?</svg>", html, re.S)
    if drawn is None:
        return ""
    block = BeautifulSoup(html, "html.parser")
    around, caption = block.find("figure"), block.find("figcaption")
    svg = ElementTree.fromstring(drawn[0])
    svg.set("class", " ".join([*(around.get("class", []) if around else []), svg.get("class", "")]).strip())
    svg.set("color", INK)
    svg.set("font-family", "TeX Gyre Heros, DejaVu Sans, sans-serif")
    style = ElementTree.Element(f"{{{SVG}}}style")
    style.text = light_style(STYLE.read_text(encoding="utf-8"))
    svg.insert(0, style)
    text = ElementTree.tostring(svg, encoding="unicode")
    name = f"drawing-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    said = f"\\bookcaption{{{escape(caption.get_text(' ', strip=True))}}}" if caption else ""
    return f"\\begin{{bookframes}}\n\\bookdrawing{{{name}.pdf}}\n{said}\n\\end{{bookframes}}\n"


class PrintMotion(SphinxPostTransform):
    """Animations and strips as LaTeX, before the plain text of an output is chosen for the builder (priority 4)."""

    default_priority = 3
    formats = ("latex",)

    def run(self, **kwargs: Any) -> None:
        for bundle in list(self.document.findall(nodes.container)):
            if bundle.get("nb_element") != "mime_bundle":
                continue
            html = "".join(raw.astext() for raw in bundle.findall(nodes.raw) if raw.get("format") == "html")
            figure = BeautifulSoup(html, "html.parser").find("figure", class_=["scrub", "motion"])
            if figure:
                bundle.replace_self(nodes.raw("", motion_latex(figure, pathlib.Path(self.app.outdir)), format="latex"))


class PrintDrawings(SphinxPostTransform):
    """The pages' own drawings as LaTeX, last, since some are drawn when all links are known."""

    default_priority = 950
    formats = ("latex",)

    def run(self, **kwargs: Any) -> None:
        for raw in list(self.document.findall(nodes.raw)):
            if raw.get("format") == "html" and (latex := drawing_latex(raw.astext(), pathlib.Path(self.app.outdir))):
                raw.replace_self(nodes.raw("", latex, format="latex"))
