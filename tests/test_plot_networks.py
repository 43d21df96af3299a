"""Diagrams of networks: sizes, places, lines and words are those of the stages, and nothing covers anything else."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch, PathPatch

from diffusion_core import MLP, DiT, UNet, plots
from diffusion_core.models import Stage, stages


@pytest.fixture(autouse=True)
def house_style():
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def found(net, *shape, label=True):
    return stages(net, torch.zeros(1, *shape), torch.zeros(1), *[torch.zeros(1, dtype=torch.long)] * label)


DRAWN = {
    "unet": lambda: found(UNet(width=32, patch=2, num_classes=10), 1, 28, 28),
    "deep unet": lambda: found(UNet(width=32, mult=(1, 2, 3), blocks=2), 1, 32, 32, label=False),
    "wide image": lambda: found(UNet(width=8, mult=(2, 1, 1), heads=0), 1, 16, 64, label=False),
    "dit": lambda: found(DiT(patch=4, num_classes=10), 1, 28, 28),
    "mlp": lambda: found(MLP(2, num_classes=3), 2),
    "dit block": lambda: stages(DiT().blocks[0], torch.zeros(1, 49, 96), torch.zeros(1, 96)),
}


def slabs(figure) -> list[FancyBboxPatch]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]


def path_of(parts):
    reached = {parts[0].name}
    for part in parts:
        reached |= {part.name} if reached & set(part.sources) else set()
    return [part for part in parts if part.name in reached]


@pytest.mark.parametrize("name", DRAWN)
def test_slabs_are_to_scale(name):
    parts = DRAWN[name]()
    path, boxes = path_of(parts), slabs(plots.network(parts))
    assert len(boxes) == len(path)
    channels = np.array([part.shape[-1] if len(part.shape) < 3 else part.shape[0] for part in path], dtype=float)
    sides = np.array([1.0 if len(part.shape) == 1 else np.sqrt(part.shape[0] if len(part.shape) == 2 else part.shape[1] * part.shape[2]) for part in path])
    for sizes, drawn in ((channels, [box.get_width() for box in boxes]), (sides, [box.get_height() for box in boxes])):
        k = int(np.argmax(sizes))
        np.testing.assert_allclose(drawn, np.maximum(0.05, drawn[k] * sizes / sizes[k]), rtol=1e-12)


def test_the_side_of_an_image_is_the_root_of_its_area():
    shapes = {"x": (2, 4, 9), "square": (2, 6, 6), "output": (2, 3, 12)}
    sources = [(), ("x",), ("square",)]
    parts = [Stage(name, "Conv2d", shape, 1, 1, source) for (name, shape), source in zip(shapes.items(), sources)]
    assert len({round(box.get_height(), 9) for box in slabs(plots.network(parts))}) == 1


@pytest.mark.parametrize("name", DRAWN)
def test_words_are_the_names_and_shapes_and_cover_nothing(name):
    parts = DRAWN[name]()
    figure = plots.network(parts)
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    words = [text.get_text() for text in texts]
    for part in path_of(parts):
        assert part.name in words and "×".join(map(str, part.shape)) in words
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    boxes = [text.get_window_extent(renderer) for text in texts]
    boxes += [slab.get_window_extent(renderer) for slab in slabs(figure)]
    page = figure.bbox
    for box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
    for a, b in itertools.combinations(boxes, 2):
        assert min(a.x1, b.x1) - max(a.x0, b.x0) < 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 2


def lines(figure, color) -> list[np.ndarray]:
    return [p.get_path().vertices for p in figure.axes[0].patches if isinstance(p, PathPatch) and to_rgb(p.get_edgecolor()) == to_rgb(color)]


@pytest.mark.parametrize("name", DRAWN)
def test_arcs_are_the_skips_and_dots_are_the_readers_of_a_condition(name):
    parts = DRAWN[name]()
    figure, path = plots.network(parts), path_of(parts)
    names = [part.name for part in path]
    skips = [(names.index(source), j) for j, part in enumerate(path) for source in part.sources if source in names and names.index(source) < j - 1]
    middles = [(box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2) for box in slabs(figure)]

    def nearest(point) -> int:
        return int(np.argmin([np.hypot(0.1 * (point[0] - x), point[1] - y) if abs(point[0] - x) < 0.6 else np.inf for x, y in middles]))

    arcs = lines(figure, plots.DATA)
    assert sorted((nearest(arc[0]), nearest(arc[-1])) for arc in arcs) == sorted(skips)
    readers = [j for j, part in enumerate(path) if set(part.sources) - set(names)]
    dots = [nearest((line.get_xdata()[0], line.get_ydata()[0])) for line in figure.axes[0].lines]
    assert sorted(dots) == readers


def test_the_rail_says_what_it_carries_and_each_branch_what_it_brings_where_they_differ():
    def words(name):
        return [text.get_text() for text in plots.network(DRAWN[name]()).axes[0].texts]

    assert "c → embed\nlabel → labels" in words("unet") and "embed + labels" not in words("unet")
    dit = words("dit")
    assert "c → embed\nlabel → labels\nembed + labels → modulation" in dit
    assert dit.count("embed + labels") == 6 and dit.count("modulation") == 1


def test_a_unet_is_a_u():
    """Skips are level, the way down is on the left, the way up on the right, and the middle below both."""
    parts = DRAWN["deep unet"]()
    place = {part.name: box.get_bbox() for part, box in zip(path_of(parts), slabs(plots.network(parts)), strict=True)}
    y, x = ({name: (getattr(b, f"{k}0") + getattr(b, f"{k}1")) / 2 for name, b in place.items()} for k in "yx")
    for i, j in itertools.product(range(3), range(2)):
        down, up = f"down.{i}.{j}", f"up.{2 - i}.{1 - j}"
        assert y[down] == pytest.approx(y[up]) and x[down] < x[up]
    assert y["x"] < y["stem"] < y["down.0.0"] < y["down.0.1"] < y["shrink.0"] < y["down.1.0"] < y["down.2.1"] < y["middle.0"]
    assert y["output"] < y["head"] < y["norm"] < y["up.2.1"] and y["middle.0"] == y["attention"] == y["middle.1"]


def test_a_darker_slab_has_more_multiply_adds():
    parts = DRAWN["unet"]()
    path, boxes = path_of(parts), slabs(plots.network(parts))
    order = np.argsort([part.multiply_adds for part in path[1:-1]], kind="stable")
    light = np.array([sum(box.get_facecolor()[:3]) for box in boxes[1:-1]])
    assert (np.diff(light[order]) <= 1e-9).all() and light.max() - light.min() > 1


def test_bars_are_shares_in_order():
    parts = DRAWN["unet"]()
    inner = [part for part in parts if part.kind not in ("input", "output")]
    left, right = plots.costs(parts).axes
    for ax, values in ((left, [part.parameters for part in inner]), (right, [part.multiply_adds for part in inner])):
        np.testing.assert_allclose([bar.get_width() for bar in ax.patches], 100 * np.array(values) / sum(values))
    assert [tick.get_text() for tick in left.get_yticklabels()] == [part.name for part in inner]
    shares = [round(100 * part.parameters / sum(stage.parameters for stage in inner)) for part in inner]
    assert [text.get_text() for text in left.texts] == [f"{share} %" if share else "" for share in shares] and left.yaxis_inverted()
    assert left.get_title() == "439 k parameters" and right.get_title() == "25.8 M multiply-adds"


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="2 stages"):
        plots.network(stages(torch.nn.Identity(), torch.zeros(1, 2)))
    with pytest.raises(ValueError, match="nothing to share"):
        plots.costs(stages(torch.nn.Sequential(torch.nn.ReLU()), torch.zeros(1, 2)))
