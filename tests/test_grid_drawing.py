"""Drawings on a grid: no line runs through a box or along another, no arrow leads up, and what cannot be drawn is an error."""

import copy
import itertools
import pathlib
import random
import re
from xml.etree import ElementTree

import pytest
import result_map
from grid_drawing import BOX, Box, Drawing, formula, rounded

ROOT = pathlib.Path(__file__).resolve().parent.parent
Segment = tuple[tuple[float, float], tuple[float, float]]


def box(name: str, column: int, row: int) -> Box:
    return Box(name, column, row, "ground", (("name", name),), name)


def random_drawing(seed: int) -> Drawing:
    dice = random.Random(seed)
    places = dice.sample(list(itertools.product(range(3), range(9))), 18)
    boxes = [box(f"b{i}", *place) for i, place in enumerate(sorted(places, key=lambda at: at[1]))]
    pairs = [(a, b) for a in boxes for b in boxes if a.row < b.row]
    return Drawing(boxes, {(a.name, b.name) for a, b in dice.sample(pairs, min(len(pairs), 24))})


def book_drawing(page: str) -> Drawing:
    text = (ROOT / "book/reference" / page).read_text(encoding="utf-8")
    if page == "map.md":
        return result_map.result_drawing(result_map.BODY.search(text)[1], ROOT)
    return result_map.chapter_drawing(re.search(r"```\{chapter-map\}\n(?::[^\n]*\n)*(.*?)```", text, re.DOTALL)[1], ROOT)


DRAWINGS = {"results": book_drawing("map.md"), "chapters": book_drawing("paths.md"), **{f"random {seed}": random_drawing(seed) for seed in range(20)}}


def segments(drawing: Drawing) -> dict[str, set[Segment]]:
    """The segments of all lines from each box, without length zero."""
    found: dict[str, set[Segment]] = {}
    for net in drawing.nets:
        for target in net.targets:
            points = drawing.way(net, target)
            found.setdefault(net.source.name, set()).update((a, b) for a, b in zip(points, points[1:]) if a != b)
    return found


@pytest.mark.parametrize("name", DRAWINGS)
def test_lines_are_upright_or_level_and_never_lead_up(name: str) -> None:
    for lines in segments(DRAWINGS[name]).values():
        for (x, y), (u, v) in lines:
            assert x == u or abs(y - v) < 1e-9
            assert v >= y - 1e-9


@pytest.mark.parametrize("name", DRAWINGS)
def test_no_line_runs_through_a_box(name: str) -> None:
    drawing = DRAWINGS[name]
    for source, lines in segments(drawing).items():
        for (x, y), (u, v) in lines:
            for other in drawing.boxes.values():
                left, top, bottom = drawing.left[other.column], drawing.top[other.row], drawing.bottom[other.row]
                inside = min(max(x, u), left + BOX) - max(min(x, u), left) > -1e-6 and min(max(y, v), bottom) - max(min(y, v), top) > 1e-6
                touching = left < min(x, u) + 1e-6 and max(x, u) < left + BOX + 1e-6
                assert not (inside and touching), f"a line from {source} runs through {other.name}"


@pytest.mark.parametrize("name", DRAWINGS)
def test_lines_from_two_boxes_cross_but_do_not_run_along_each_other(name: str) -> None:
    every = segments(DRAWINGS[name])
    for first, second in itertools.combinations(every, 2):
        for ((x, y), (u, v)), ((p, q), (r, s)) in itertools.product(every[first], every[second]):
            if y == v and q == s and abs(y - q) < 1:
                assert min(max(x, u), max(p, r)) - max(min(x, u), min(p, r)) < 1e-6, (first, second)
            if x == u and p == r and abs(x - p) < 1:
                assert min(max(y, v), max(q, s)) - max(min(y, v), min(q, s)) < 1e-6, (first, second)


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_line_arrives_on_the_upper_edge_of_its_box_and_the_picture_holds_all(name: str) -> None:
    drawing = DRAWINGS[name]
    for net in drawing.nets:
        for target in net.targets:
            (x, y), (u, v) = drawing.way(net, target)[0], drawing.way(net, target)[-1]
            assert (x, y) == (drawing.center(net.source), drawing.bottom[net.source.row])
            assert drawing.left[target.column] + 5 <= u <= drawing.left[target.column] + BOX - 5 and v == drawing.top[target.row]
            assert all(0 <= a <= drawing.width and 0 <= b <= drawing.height for a, b in drawing.way(net, target))


def test_what_cannot_be_drawn_is_an_error() -> None:
    with pytest.raises(ValueError, match="in the same place"):
        Drawing([box("a", 0, 0), box("b", 0, 0)], set())
    with pytest.raises(ValueError, match="from b to a would not lead down"):
        Drawing([box("a", 0, 0), box("b", 0, 1)], {("b", "a")})
    with pytest.raises(ValueError, match="would not lead down"):
        Drawing([box("a", 0, 0), box("b", 1, 0)], {("a", "b")})


def test_a_drawing_that_was_stored_and_read_again_is_the_same() -> None:
    """Sphinx stores its pages between reading and writing them: what is drawn then is another object than what was read."""
    drawing = DRAWINGS["results"]
    assert copy.deepcopy(drawing).svg(str, "c", "t", "d", "k") == drawing.svg(str, "c", "t", "d", "k")


def test_the_svg_names_its_boxes_and_links_them() -> None:
    drawing = Drawing([box("a", 0, 0), Box("b", 1, 1, "score", (("name", "p < q"), ("formula", "x_t^2")), 'b "quoted"')], {("a", "b")}, {0: ["One"], 1: ["Left", "Right"]})
    svg = drawing.svg(lambda box: f"page.html#{box.name}" if box.name == "b" else "", "drawn", "T & t", "D", "key")
    root = ElementTree.fromstring(svg)
    space = {"s": "http://www.w3.org/2000/svg"}
    assert root.find("s:title", space).text == "T & t" and root.get("aria-labelledby") == "key-title key-desc"
    links = root.findall("s:a", space)
    assert [(link.get("href"), link.get("aria-label")) for link in links] == [("page.html#b", 'b "quoted"')]
    assert ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")] == ["One", "Left", "Right", "a", "p < q", "xt2"]


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("a", "a"),
        ("a < b", "a\u00a0&lt;\u00a0b"),
        ("x_t", 'x<tspan class="small" dy="4">t</tspan>'),
        ("x_t + 1", 'x<tspan class="small" dy="4">t</tspan><tspan dy="-4">\u00a0+\u00a01</tspan>'),
        ("q_{t|s}^2!", 'q<tspan class="small" dy="4">t|s</tspan><tspan class="small" dy="-9">2</tspan><tspan dy="5">!</tspan>'),
    ],
)
def test_a_formula_of_one_line(text: str, drawn: str) -> None:
    assert formula(text) == drawn


def test_a_path_has_round_corners_that_fit_into_short_pieces() -> None:
    assert rounded([(0, 0), (0, 20), (30, 20)]) == "M0 0L0 15Q0 20 5 20L30 20"
    assert rounded([(0, 0), (0, 4), (30, 4)]) == "M0 0L0 2Q0 4 5 4L30 4"
