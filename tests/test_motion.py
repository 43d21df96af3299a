"""Strips and animations: one well-formed element each, equal bytes for equal frames, a limit on their weight."""

import io
from html.parser import HTMLParser

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from diffusion_core import plots
from diffusion_core.plots.motion import webp


def figures(n: int = 4):
    for i in range(n):
        figure, ax = plt.subplots(figsize=(3, 2))
        ax.plot(np.linspace(0, 1, 20) ** (i + 1), color=plots.DATA)
        yield figure


def strip(n: int = 4, **options):
    return plots.scrub(figures(n), [f"t = {i / 10:.2f}" for i in range(n)], **{"alt": "a curve <bends>"} | options)


class Elements(HTMLParser):
    """Every element with its attributes; fails on a tag that is not closed or not open."""

    VOID = {"img", "input", "path"}

    def __init__(self, text: str):
        super().__init__()
        self.open, self.all = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        self.all.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.all.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.all if name == tag]


def test_a_frame_is_the_figure_at_its_size_and_closes_it() -> None:
    figure = next(figures())
    picture = plots.frame(figure, dpi=50)
    assert picture.shape == (100, 150, 3) and picture.dtype == np.uint8 and picture.min() < 100 and (picture[0, 0] == 255).all()
    assert plt.get_fignums() == []


def test_strip_is_one_element() -> None:
    element = strip(start=2, caption="bends & bends")
    page = Elements(element._repr_html_())
    images, (slider,) = page.of("img"), page.of("input")
    assert repr(element) == "a curve <bends>" and "0x" not in repr(element)
    assert [i for i, image in enumerate(images) if "hidden" not in image] == [2] and len(images) == 4
    assert [image["alt"] for image in images] == [f"a curve <bends>: t = 0.{i}0" for i in range(4)]
    assert slider["type"] == "range" and slider["aria-label"] == "Time" and slider["aria-valuetext"] == "t = 0.20"
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "3", "2")
    assert page.of("figure")[0]["class"] == "scrub" and "bends &amp; bends</figcaption>" in element.html
    assert not any("id" in attrs for _, attrs in page.all), "an id would collide when a strip is shown twice"
    assert page.of("script") == [] and "http" not in element.html


def test_animation_is_one_element() -> None:
    animation = plots.animate(figures(), alt="a curve", seconds=0.4, hold=1.0)
    page = Elements(animation._repr_html_())
    assert repr(animation) == "a curve" and [image["alt"] for image in page.of("img")] == ["a curve"] * 2
    assert "prefers-reduced-motion" in animation.html and page.of("input")[0]["type"] == "checkbox"
    with Image.open(io.BytesIO(animation.webp)) as image:
        assert image.n_frames == 4 and image.info["loop"] == 0 and image.size == (330, 220)
        durations = []
        for i in range(4):
            image.seek(i)
            image.load()
            durations.append(image.info["duration"])
    assert durations == [100, 100, 100, 1100]


def test_equal_frames_give_equal_bytes() -> None:
    assert strip().html == strip().html != strip(start=1).html
    assert plots.animate(figures(), alt="a").html == plots.animate(figures(), alt="a").html


def test_line_drawings_are_stored_without_loss_of_sharpness() -> None:
    """64 colors without loss beat lossy coding on a line drawing, in size and in error; on noise in color they do not."""
    line = plots.frame(next(figures()))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert b"VP8L" in webp(line, 70)[:16] and b"VP8L" not in webp(noise, 70)[:16]
    decoded = np.asarray(Image.open(io.BytesIO(webp(line, 70))).convert("RGB"), dtype=float)
    assert np.mean((decoded - line) ** 2) < 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: strip(alt=" "), "alt is ' '"),
        (lambda: strip(name=""), "name is ''"),
        (lambda: strip(start=4), "0 to 3"),
        (lambda: strip(seconds=0), "seconds = 0"),
        (lambda: strip(1), "at least two frames"),
        (lambda: plots.scrub(figures(), ["a"], alt="a"), "4 frames and 1 labels"),
        (lambda: plots.scrub([np.zeros((4, 4, 3))] * 2, ["a", "b"], alt="a"), "float64"),
        (lambda: plots.scrub([np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)], ["a", "b"], alt="a"), "draw all frames at one size"),
        (lambda: plots.animate([], alt="a"), "no frames"),
        (lambda: plots.animate(figures(), alt=""), "alt is ''"),
        (lambda: plots.animate(figures(), alt="a", seconds=0), "seconds = 0"),
        (lambda: strip(limit=9_000), r"this strip weighs 1?\d,\d{3} bytes; at most 9,000 are allowed. Use fewer frames"),
        (lambda: plots.animate(figures(), alt="a", limit=1_000), "this animation weighs"),
    ],
)
def test_wrong_strips_and_animations(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_alt_is_required() -> None:
    with pytest.raises(TypeError, match="alt"):
        plots.scrub(figures(), list("abcd"))
    with pytest.raises(TypeError, match="alt"):
        plots.animate(figures())


def test_default_limit_is_the_books() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 160, 160, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="at most 400,000"):
        plots.scrub(noise, [str(i) for i in range(30)], alt="noise")
