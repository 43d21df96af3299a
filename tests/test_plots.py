"""Pictures: what is drawn is what was given, value by value."""

import io

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image

from diffusion_core import plots
from diffusion_core.oracles import ring, two_peaks


@pytest.fixture(autouse=True)
def house_style():
    with matplotlib.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def test_the_style_is_the_default_of_new_figures() -> None:
    figure, ax = plt.subplots()
    assert ax.imshow(np.zeros((2, 2))).get_cmap().name == plots.SEQUENTIAL.name
    assert plots.frame(figure, dpi=100).shape == (370, 640, 3)


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
        (lambda: plots.tile(torch.zeros(1, 4, 4), 0), "columns must be a positive integer, got 0"),
        (lambda: plots.image_grid(torch.zeros(4, 4, 4), 2, row_titles=["a"]), "1 row_titles for a grid of 2 rows"),
    ],
)
def test_wrong_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_axes_are_reused() -> None:
    ax: Axes = plots.density_2d(ring().log_prob)
    states = torch.zeros(3, 2, 2)
    assert plots.trajectories_2d(states, ax=plots.score_field(ring().score, ax=plots.points_2d(states[0], ax=ax))) is ax
