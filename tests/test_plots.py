"""Pictures: what is drawn is what was given, equal inputs give equal bytes, and colors stay apart for those who see fewer of them."""

import io
import itertools
from html.parser import HTMLParser

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from PIL import Image

from diffusion_core import plots
from diffusion_core.oracles import ring, two_peaks
from diffusion_core.plots.motion import webp

ROLES = {"data": plots.DATA, "noise": plots.NOISE, "model": plots.MODEL, "exact": plots.EXACT, "wrong": plots.WRONG}

# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision deficiency" (IEEE TVCG 15(6), 2009):
# table for severity 1, acting on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])


@pytest.fixture(autouse=True)
def house_style():
    with matplotlib.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def linear_rgb(colors) -> np.ndarray:
    c = np.array([to_rgb(color) for color in colors])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def luminance(colors) -> np.ndarray:
    return linear_rgb(colors) @ XYZ[1]


def lab(colors, sight: str) -> np.ndarray:
    """CIE L*a*b* (D65) of colors as seen."""
    xyz = np.clip(linear_rgb(colors) @ SIGHT[sight].T, 0, 1) @ XYZ.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=-1)


def closest(colors, sight: str) -> float:
    points = lab(colors, sight)
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(points, 2))


@pytest.mark.parametrize(("sight", "travellers", "roles"), [("normal", 40, 40), ("protanopia", 30, 20), ("deuteranopia", 30, 20), ("tritanopia", 20, 20)])
def test_colors_stay_apart(sight: str, travellers: float, roles: float) -> None:
    assert closest(plots.TRAVELLERS, sight) >= travellers
    assert closest(ROLES.values(), sight) >= roles


def test_the_measure_of_colors_finds_a_bad_pair() -> None:
    """The red and the green of traffic lights are apart for normal sight and near for a deuteranope."""
    pair = ("#c0504d", "#7f7f3f")
    assert closest(pair, "normal") > 40 and closest(pair, "deuteranopia") < 20


def test_lines_stand_out_from_the_paper() -> None:
    """WCAG 2 asks 3 : 1 of what carries meaning; the lightest traveller has 2.7 and is told by its marker too, and ink has far more."""
    contrast = 1.05 / (luminance([*ROLES.values(), *plots.TRAVELLERS, plots.INK]) + 0.05)
    assert (contrast[:5] >= 3).all() and (contrast[5:] >= 2.7).all() and contrast[-1] > 12
    assert len(set(plots.MARKERS)) == len(plots.TRAVELLERS) == 8


def test_colormaps() -> None:
    at = np.linspace(0, 1, 65)
    assert (np.diff(luminance(plots.SEQUENTIAL(at))) < 0).all()
    middle = luminance(plots.DIVERGING(at))
    assert (np.diff(middle[:33]) > 0).all() and (np.diff(middle[32:]) < 0).all() and middle[32] > 0.99
    assert plt.imshow(np.zeros((2, 2))).get_cmap().name == plots.SEQUENTIAL.name


def test_density_1d_draws_the_density() -> None:
    ax = plots.density_1d(two_peaks().log_prob, -4, 4)
    x, y = ax.lines[0].get_data()
    assert np.trapezoid(y, x) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(y, two_peaks().log_prob(torch.from_numpy(x)).exp().numpy(), rtol=1e-12)
    assert ax.get_xlim() == (-4, 4) and ax.get_ylim()[0] == 0 and ax.get_ylim()[1] > y.max()


def test_histogram_keeps_the_mass_outside_out() -> None:
    samples = torch.cat([torch.linspace(-0.99, 0.99, 75), torch.full((25,), 9.0)])
    heights, edges, _ = plots.histogram(samples, -1, 1, bins=10).patches[0].get_data()
    assert (heights * np.diff(edges)).sum() == pytest.approx(0.75)


def test_density_2d_and_its_orientation() -> None:
    """A peak at (1, -1) is at the right and at the bottom, the map's maximum, and of the stated strength."""
    image = plots.density_2d(lambda x: -((x - torch.tensor([1.0, -1.0])) ** 2).sum(-1), -2, 2, points=81, strength=0.5).images[0]
    heat = np.asarray(image.get_array())
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert (row, column) == (20, 60) and image.origin == "lower" and heat.max() == pytest.approx(0.5)
    assert heat[20, 40] == pytest.approx(0.5 * np.exp(-1 / 2))


def test_density_over_time_runs_in_the_order_of_the_times() -> None:
    ax = plots.density_over_time(lambda x, t: -((x - t) ** 2), [1.0, 0.5, 0.0], -3, 3, points=61, strength=1.0)
    heat = np.asarray(ax.collections[0].get_array()).reshape(61, 3)
    assert ax.get_xlim() == (1.0, 0.0) and heat.argmax(axis=0).tolist() == [40, 35, 30]


def test_score_field_points_along_the_score() -> None:
    arrows = plots.score_field(lambda x: -x, arrows=9).collections[0]
    points, field = arrows.get_offsets(), np.stack([arrows.U, arrows.V], -1)
    assert len(points) == 81
    cross = points[:, 0] * field[:, 1] - points[:, 1] * field[:, 0]
    np.testing.assert_allclose(cross, 0, atol=1e-12)
    assert ((points * field).sum(-1) <= 0).all()
    length, norm = np.linalg.norm(field, axis=1), np.linalg.norm(points, axis=1)
    m = np.median(norm)
    np.testing.assert_allclose(length, length.max() * (norm / (norm + m)) / (norm.max() / (norm.max() + m)), atol=1e-12)


def test_trajectories_are_the_states() -> None:
    times, states = np.linspace(1, 0, 5), torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    ax = plots.trajectories_1d(times, list(states))
    paths, ends = ax.lines[::2], ax.lines[1::2]
    for i, (path, end) in enumerate(zip(paths, ends, strict=True)):
        np.testing.assert_allclose(path.get_ydata(), states[:, i].numpy())
        assert path.get_color() == plots.TRAVELLERS[i] and end.get_marker() == plots.MARKERS[i]
        assert end.get_ydata()[0] == pytest.approx(float(states[-1, i]))
    plane = plots.trajectories_2d(torch.stack([states, -states], -1)).lines
    np.testing.assert_allclose(plane[0].get_xydata()[:, 1], -states[:, 0].numpy())
    crowd = plots.trajectories_1d(times, torch.zeros(5, 9)).lines
    assert len(crowd) == 9 and {line.get_color() for line in crowd} == {plots.MODEL}


def test_tile_repeats_pixels_and_leaves_gaps() -> None:
    x = torch.tensor([[[-1.0, 1.0]], [[0.0, 3.0]], [[-9.0, 0.5]]])[:, None]
    picture = plots.tile(x, 2, width=17, gap=1)
    assert picture.shape == (9, 17, 3) and picture.dtype == np.uint8
    gray = picture[..., 0]
    assert (picture == gray[..., None]).all()
    assert (gray[:4, :4] == 0).all() and (gray[:4, 4:8] == 255).all() and (gray[:4, 9:13] == 128).all()
    assert (gray[4] == 255).all() and (gray[:, 8] == 255).all() and (gray[5:, 9:] == 255).all()
    assert (gray[5:, :4] == 0).all() and (gray[5:, 4:8] == 191).all()
    rgb = plots.tile(torch.tensor([1.0, -1.0, 0.0]).reshape(1, 3, 1, 1), width=3)
    assert rgb.shape == (3, 3, 3) and rgb[0, 0].tolist() == [255, 0, 128]
    assert plots.tile(x[:, 0], 2, width=17, gap=1).tobytes() == picture.tobytes()


def test_image_grid_shows_every_pixel_once() -> None:
    """The stored figure holds the tiled picture, dot for pixel, beside and below the titles."""
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    figure = plots.image_grid(x, 3, row_titles=["a", "b"], column_titles=["1", "2", "3"], title="t")
    file = io.BytesIO()
    figure.savefig(file)
    stored = np.asarray(Image.open(file).convert("RGB"))
    picture = np.asarray(figure.axes[0].images[0].get_array())
    high, wide = picture.shape[:2]
    assert stored.shape[1] <= 922 and stored.shape[0] > high and stored.shape[1] > wide
    np.testing.assert_array_equal(stored[-high:, -wide:], picture)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.density_1d(two_peaks().log_prob, 1, 1), "expected low < high"),
        (lambda: plots.density_1d(lambda x: x[:-1]), r"returned shape \(600,\)"),
        (lambda: plots.density_2d(ring().log_prob, strength=0.0), "strength = 0.0"),
        (lambda: plots.density_2d(lambda x: x[:, 0] * float("nan")), "returned NaN"),
        (lambda: plots.score_field(ring().log_prob), "score returned shape"),
        (lambda: plots.density_over_time(lambda x, t: -x, [0.0, 1.0, 0.5]), "strictly rising or strictly falling"),
        (lambda: plots.histogram(torch.zeros(3, 2)), r"expected \(n,\)"),
        (lambda: plots.histogram(torch.zeros(0)), "is empty"),
        (lambda: plots.trajectories_1d([0, 1, 2], torch.zeros(2, 3)), "one time for each row"),
        (lambda: plots.trajectories_2d(torch.zeros(5, 8)), r"expected \(K, n, 2\)"),
        (lambda: plots.points_2d(torch.zeros(5, 3)), r"expected \(n, 2\)"),
        (lambda: plots.tile(torch.zeros(2, 2, 4, 4)), r"\(B, 1, H, W\)"),
        (lambda: plots.tile(torch.full((1, 4, 4), float("nan"))), "NaN"),
        (lambda: plots.tile(torch.zeros(1, 4, 4), 0), "columns = 0"),
        (lambda: plots.image_grid(torch.zeros(4, 4, 4), 2, row_titles=["a"]), "1 row_titles for a grid of 2 rows"),
    ],
)
def test_wrong_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


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


def test_axes_are_reused() -> None:
    ax: Axes = plots.density_2d(ring().log_prob)
    states = torch.zeros(3, 2, 2)
    assert plots.trajectories_2d(states, ax=plots.score_field(ring().score, ax=plots.points_2d(states[0], ax=ax))) is ax
