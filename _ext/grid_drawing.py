"""A directed graph on a grid, drawn as SVG: boxes in columns and rows, and lines that run between them and never through one.

Each box sends one line down from the middle of its lower edge. In the channel under its row the line may turn; where a target stands farther down, it
takes a lane between the columns; above each target it branches off. Lines in one channel or lane keep apart: intervals that overlap get tracks of their
own. What comes into a box is spread over its upper edge, from left to right in the order in which it arrives.
"""

import html
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

BOX, LINE, PAD, TRACK, EDGE, ROUND = 138.0, 18.5, 8.0, 5.4, 6.0, 5.0
CHANNEL, BAND = 21.0, 32.0  # the least height of a channel, the height of a row of headings
STUB = 11.0  # from the last track of a channel to the tip of the arrow


@dataclass(frozen=True)
class Box:
    """A box at a column and a row; `look` is its class and that of its lines, `lines` are (class, text)."""

    name: str
    column: int
    row: int
    look: str
    lines: tuple[tuple[str, str], ...]
    said: str


@dataclass
class Net:
    """All lines from one box."""

    source: Box
    targets: list[Box]
    gutter: int | None = None
    lane: int = 0
    tracks: dict[int, int] = field(default_factory=dict)  # channel -> track


Interval = tuple[float, float]


def colored(intervals: Iterable[tuple[object, Interval]], gap: float = 0) -> dict[object, int]:
    """The least track for each interval such that intervals of one track keep `gap` apart, in the order given."""
    tracks: list[list[Interval]] = []
    chosen = {}
    for key, (low, high) in intervals:
        place = next((i for i, track in enumerate(tracks) if all(high + gap <= a or b + gap <= low for a, b in track)), len(tracks))
        if place == len(tracks):
            tracks.append([])
        tracks[place].append((low, high))
        chosen[key] = place
    return chosen


class Drawing:
    """Where everything is; `svg` writes it. `bands` are {row: headings of the columns} above that row."""

    def __init__(self, boxes: Collection[Box], edges: Collection[tuple[str, str]], bands: dict[int, list[str]] | None = None) -> None:
        self.boxes = {box.name: box for box in boxes}
        self.bands = bands or {}
        self.columns = 1 + max(box.column for box in boxes)
        self.rows = 1 + max(box.row for box in boxes)
        places = {(box.column, box.row): box.name for box in boxes}
        if len(places) < len(boxes):
            raise ValueError("two boxes of the drawing are in the same place")
        for start, end in edges:
            if self.boxes[start].row >= self.boxes[end].row:
                raise ValueError(f"the line from {start} to {end} would not lead down: move one of them")
        self.nets = [Net(box, sorted((self.boxes[end] for start, end in edges if start == box.name), key=lambda to: (to.row, to.column))) for box in boxes]
        self.nets = sorted((net for net in self.nets if net.targets), key=lambda net: (net.source.row, net.source.column))
        self._lanes()
        self._tracks()
        self._coordinates()

    def _lanes(self) -> None:
        """A gutter for every net that goes past the row under its source, and a lane in it for each."""
        for net in self.nets:
            if max(target.row for target in net.targets) > net.source.row + 1:
                far = [target for target in net.targets if target.row > net.source.row + 1]
                side = sum((target.column > net.source.column) - (target.column < net.source.column) for target in far)
                net.gutter = net.source.column + (side > 0 or (side == 0 and net.source.column >= (self.columns - 1) / 2))
        self.lanes = []
        for gutter in range(self.columns + 1):
            nets = [net for net in self.nets if net.gutter == gutter]
            spans = [(id(net), (float(net.source.row), max(target.row for target in net.targets) - 0.5)) for net in nets]
            lanes = colored(spans)
            for net in nets:
                net.lane = lanes[id(net)]
            self.lanes.append(1 + max(lanes.values(), default=-1))

    def _reach(self, net: Net, channel: int) -> list[float]:
        """The places, in columns, that a net visits in a channel: boxes at .5, gutters at whole numbers."""
        places = [net.source.column + 0.5] if channel == net.source.row else []
        places += [target.column + 0.5 for target in net.targets if target.row == channel + 1]
        if net.gutter is not None and (places or channel == net.source.row):
            places.append(float(net.gutter))
        return places

    def _tracks(self) -> None:
        """In each channel a track for each net that turns there."""
        self.channels = []
        for channel in range(self.rows - 1):
            visits = {id(net): (net, self._reach(net, channel)) for net in self.nets}
            turning = [(key, net, (min(places), max(places))) for key, (net, places) in visits.items() if places and max(places) > min(places)]
            turning.sort(key=lambda item: (item[1].source.row != channel, item[2][1] - item[2][0]))
            tracks = colored(((key, span) for key, _, span in turning), gap=1e-6)
            for key, net, _ in turning:
                net.tracks[channel] = tracks[key]
            self.channels.append(1 + max(tracks.values(), default=-1))

    def _coordinates(self) -> None:
        gutters = [EDGE + lanes * TRACK for lanes in self.lanes]
        self.left, x = [], 0.0
        self.gutter_left = []
        for width in gutters:
            self.gutter_left.append(x)
            x += width
            self.left.append(x)
            x += BOX
        self.width = self.left.pop()
        self.gutter_width = gutters
        y, self.top, self.bottom, self.band_top = 2.0, [], [], {}
        for row in range(self.rows):
            if row in self.bands:
                self.band_top[row] = y
                y += BAND
            most = max((len(box.lines) for box in self.boxes.values() if box.row == row), default=1)
            self.top.append(y)
            y += most * LINE + 2 * PAD
            self.bottom.append(y)
            if row < self.rows - 1:
                y += CHANNEL + self.channels[row] * TRACK
        self.height = y + 2
        self.ports = {}
        for box in self.boxes.values():
            coming = sorted((net for net in self.nets if box in net.targets), key=lambda net: self._arrives(net, box))
            straight = [net for net in coming if self._straight(net, box)]
            if straight:
                index = coming.index(straight[0])
                for i, net in enumerate(coming):
                    self.ports[net.source.name, box.name] = self.center(box) + (i - index) * min(15.0, (BOX - 24) / max(2 * max(index, len(coming) - 1 - index), 1))
            else:
                spots = [i - (len(coming) - 1) / 2 for i in range(len(coming))]
                spots = [spot if spot else 0.5 for spot in spots]
                for net, spot in zip(coming, spots):
                    self.ports[net.source.name, box.name] = self.center(box) + spot * min(18.0, (BOX - 24) / max(len(coming), 1))

    def _straight(self, net: Net, box: Box) -> bool:
        return net.source.column == box.column and net.source.row + 1 == box.row

    def _arrives(self, net: Net, box: Box) -> float:
        return net.source.column + 0.5 if net.source.row + 1 == box.row or net.gutter is None else float(net.gutter) + net.lane / 100

    def center(self, box: Box) -> float:
        return self.left[box.column] + BOX / 2

    def lane_x(self, net: Net) -> float:
        assert net.gutter is not None
        used = self.lanes[net.gutter] * TRACK
        return self.gutter_left[net.gutter] + (self.gutter_width[net.gutter] - used) / 2 + (net.lane + 0.5) * TRACK

    def track_y(self, net: Net, channel: int) -> float:
        return self.bottom[channel] + (CHANNEL - STUB) / 2 + (net.tracks[channel] + 0.5) * TRACK

    def way(self, net: Net, target: Box) -> list[tuple[float, float]]:
        """The corners of the line from a net's source to one of its targets."""
        start, last = net.source.row, target.row - 1
        port = self.ports[net.source.name, target.name]
        points = [(self.center(net.source), self.bottom[start])]
        if start != last:
            points += [(points[0][0], self.track_y(net, start)), (self.lane_x(net), self.track_y(net, start)), (self.lane_x(net), self.track_y(net, last))]
            points.append((port, self.track_y(net, last)))
        elif port != points[0][0]:
            y = self.track_y(net, start) if start in net.tracks else self.bottom[start] + CHANNEL / 2
            points += [(points[0][0], y), (port, y)]
        return [*points, (port, self.top[target.row])]

    def svg(self, link: Callable[[Box], str], classes: str, title: str, desc: str, key: str) -> str:
        lines = [line for net in self.nets for target in net.targets for line in [self._line(net, target)]]
        boxes = [self._box(box, link(box)) for box in self.boxes.values()]
        heads = [self._heading(row, texts) for row, texts in self.bands.items()]
        rules = "".join(
            f'.{key}:has([data-box="{box}"]:is(:hover,:focus-visible)) .line:not([data-ends~="{box}"]){{opacity:.1}}' for box in self.boxes
        )
        return (
            f'<svg class="{classes} {key}" viewBox="0 0 {self.width:g} {self.height:g}" role="group" aria-labelledby="{key}-title {key}-desc" xmlns="http://www.w3.org/2000/svg">'
            f'<title id="{key}-title">{html.escape(title)}</title><desc id="{key}-desc">{html.escape(desc)}</desc><style>{rules}</style>'
            f"{''.join(lines)}{''.join(heads)}{''.join(boxes)}</svg>"
        )

    def _line(self, net: Net, target: Box) -> str:
        points = self.way(net, target)
        x, y = points[-1]
        return (
            f'<g class="line {net.source.look}" data-ends="{net.source.name} {target.name}"><path d="{rounded([*points[:-1], (x, y - 5)])}"/>'
            f'<path class="tip" d="M{x - 4:g} {y - 7:g}L{x + 4:g} {y - 7:g}L{x:g} {y - 0.5:g}z"/></g>'
        )

    def _box(self, box: Box, uri: str) -> str:
        x, y = self.left[box.column], self.top[box.row]
        height = self.bottom[box.row] - y
        first = y + (height - len(box.lines) * LINE) / 2 + LINE - 5
        texts = "".join(
            f'<text class="{look}" x="{x + BOX / 2:g}" y="{first + i * LINE:g}" text-anchor="middle">{formula(text) if look == "formula" else html.escape(text)}</text>'
            for i, (look, text) in enumerate(box.lines)
        )
        shape = f'<rect class="{box.look}" x="{x:g}" y="{y:g}" width="{BOX:g}" height="{height:g}" rx="7"/>{texts}'
        if not uri:
            return f"<g>{shape}</g>"
        return f'<a href="{html.escape(uri)}" data-box="{box.name}" aria-label="{html.escape(box.said)}">{shape}</a>'

    def _heading(self, row: int, texts: list[str]) -> str:
        y = self.band_top[row] + BAND - 11
        if len(texts) == 1:
            return f'<text class="band" x="{self.width / 2:g}" y="{y:g}" text-anchor="middle">{html.escape(texts[0])}</text>'
        return "".join(f'<text class="band" x="{self.left[i] + BOX / 2:g}" y="{y:g}" text-anchor="middle">{html.escape(text)}</text>' for i, text in enumerate(texts))


def rounded(points: list[tuple[float, float]]) -> str:
    """The path through the points with its corners rounded."""
    path = f"M{points[0][0]:g} {points[0][1]:g}"
    for before, corner, after in zip(points, points[1:], points[2:]):
        a, b = (toward(corner, other) for other in (before, after))
        path += f"L{a[0]:g} {a[1]:g}Q{corner[0]:g} {corner[1]:g} {b[0]:g} {b[1]:g}"
    return path + f"L{points[-1][0]:g} {points[-1][1]:g}"


def toward(corner: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = max(abs(dx), abs(dy))
    share = min(ROUND, length / 2) / length if length else 0
    return corner[0] + share * dx, corner[1] + share * dy


def formula(text: str) -> str:
    """A formula of one line, `p_{t|s} = x^2`: the parts behind _ and ^ small, lowered and raised; spaces that no program drops at the edge of a part."""
    out, lift = "", 0.0
    for part in re.findall(r"[_^]\{[^}]*\}|[_^].|[^_^]+", text.replace(" ", "\u00a0")):
        if part[0] in "_^":
            move = 4.0 if part[0] == "_" else -5.0
            inner = part[2:-1] if part[1] == "{" else part[1:]
            out += f'<tspan class="small" dy="{move - lift:g}">{html.escape(inner)}</tspan>'
            lift = move
        else:
            out += f'<tspan dy="{-lift:g}">{html.escape(part)}</tspan>' if lift else html.escape(part)
            lift = 0.0
    return out
