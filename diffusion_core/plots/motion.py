"""Moving pictures without a kernel, a player or a network: an animated WebP inside one HTML element.

Equal frames give equal bytes. The element holds everything it needs (pictures as data URIs, its own few rules of style), needs no ids, and
behaves the same in a live notebook and in the built book.
"""

import base64
import html
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

FRAME_DPI = 110
ANIMATION_LIMIT = 800_000

_STYLE = """
.motion img{display:block;width:auto;max-width:100%;height:auto;margin:0 auto;padding:0!important;background:#fff;border-radius:.4rem}
.motion .still,.motion:has(input:checked) .moving{display:none!important}
.motion:has(input:checked) .still{display:block!important}
.motion label{display:inline-flex;align-items:center;gap:.5rem;min-height:44px;cursor:pointer;font-size:.95rem}
.motion input{width:1.25rem;height:1.25rem;accent-color:var(--pst-color-primary,#0b62c4)}
.motion figcaption{margin:.25rem 0 0;font-size:.95rem;text-align:left}
html[data-theme=dark] .motion img{filter:brightness(.92)}
.text_html:has(>.motion){background:none!important;color:inherit!important;padding:0!important}
@media (prefers-reduced-motion:reduce){.motion .moving,.motion label{display:none!important}.motion .still{display:block!important}}
"""


@dataclass(frozen=True)
class Element:
    """An HTML element that a notebook shows; as plain text, and where HTML is not shown, it is its alt text.

    >>> from diffusion_core.plots import Element
    >>> Element(html="<b>x</b>", alt="A bold x.")
    A bold x.
    """

    html: str
    alt: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.alt


@dataclass(frozen=True, repr=False)
class Animation(Element):
    """An animation in a page; `webp` holds the bytes of the file, to be written where a file is wanted.

    >>> import torch
    >>> from diffusion_core import plots
    >>> frames = [plots.tile(torch.full((1, 1, 8, 8), gray)) for gray in (-1.0, 1.0)]
    >>> film = plots.animate(frames, alt="A square turns white.")
    >>> film.webp[:4], film.webp[8:12]
    (b'RIFF', b'WEBP')
    """

    webp: bytes


def frame(figure: Figure, *, dpi: int = FRAME_DPI) -> np.ndarray:
    """Draw a figure once, uncropped, and close it: uint8 (height, width, 3), height and width being its size in inches times dpi.

    >>> import matplotlib.pyplot as plt
    >>> from diffusion_core import plots
    >>> plots.frame(plt.figure(figsize=(2, 1)), dpi=50).shape
    (50, 100, 3)
    """
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return picture


def as_frames(frames: Iterable[Any]) -> list[np.ndarray]:
    """Figures and uint8 arrays (H, W, 3) or (H, W) as a list of (H, W, 3); ValueError when there are none or their sizes differ."""
    pictures: list[np.ndarray] = []
    for i, one in enumerate(frames):
        picture = frame(one) if isinstance(one, Figure) else np.asarray(one)
        if picture.ndim == 2:
            picture = np.repeat(picture[..., None], 3, axis=-1)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
            raise ValueError(f"frame {i} is {picture.dtype} of shape {picture.shape}; expected a figure or uint8 (H, W, 3); see `frame` and `tile`")
        if pictures and picture.shape != pictures[0].shape:
            raise ValueError(f"frame {i} has shape {picture.shape}, frame 0 has {pictures[0].shape}; draw all frames at one size")
        pictures.append(picture)
    if not pictures:
        raise ValueError("there are no frames; pass at least one")
    return pictures


def as_text(text: str, name: str) -> str:
    """`text`, stripped; ValueError when it is empty."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name} is {text!r}; expected words that say what is seen, for those who do not see it")
    return text.strip()


def webp(picture: np.ndarray, quality: int) -> bytes:
    """One picture as WebP: lossy at `quality` (1 to 100), or lossless in few colors where that is both smaller and closer to the picture.

    Line drawings take the second way and stay sharp; heat maps and photographs take the first and get no bands. Of two palettes the closer one
    is taken: median cut is good at shades of gray, the octree keeps the colors of small marks.
    """
    image = Image.fromarray(picture)
    lossy = _encoded(image, quality=quality)
    palettes = image.quantize(64, method=Image.Quantize.MEDIANCUT), image.quantize(128, method=Image.Quantize.FASTOCTREE)
    flat = min((_encoded(few.convert("RGB"), lossless=True) for few in palettes), key=lambda content: _error(content, picture))
    return flat if len(flat) < len(lossy) and _error(flat, picture) < _error(lossy, picture) else lossy


def _encoded(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format="WEBP", method=4, **options)
    return file.getvalue()


def _error(content: bytes, picture: np.ndarray) -> float:
    """Mean squared difference between an encoded picture and the original."""
    decoded = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=np.float64)
    return float(np.mean((decoded - picture) ** 2))


def data_uri(content: bytes) -> str:
    """The bytes of a WebP as the address of an image."""
    return "data:image/webp;base64," + base64.b64encode(content).decode("ascii")


def within(element: str, limit: int, what: str) -> str:
    """`element`, or a ValueError when it is larger than `limit` bytes."""
    size = len(element.encode())
    if size > limit:
        raise ValueError(
            f"{what} weighs {size:,} bytes; at most {limit:,} are allowed. Use fewer frames, draw them smaller (`frame(figure, dpi=...)`, "
            f"`tile(..., width=...)`), or lower `quality`."
        )
    return element


def animate(
    frames: Iterable[Any],
    *,
    alt: str,
    caption: str | None = None,
    seconds: float = 4.0,
    hold: float = 1.5,
    quality: int = 70,
    limit: int = ANIMATION_LIMIT,
) -> Animation:
    """An endless animation of `frames`: `seconds` for all of them together, then the last one held for `hold` seconds more.

    frames: figures (drawn and closed) or uint8 arrays (H, W, 3) of one size; a generator may draw them one by one. alt: what is seen, required.
    The reader may pause it; who asks their system for reduced motion gets the last frame alone. Raises ValueError for frames of different
    sizes, a missing alt, durations that are not positive, or an element of more than `limit` bytes.

    >>> import torch
    >>> from diffusion_core import plots
    >>> frames = [plots.tile(torch.full((1, 1, 8, 8), gray)) for gray in (-1.0, 1.0)]
    >>> plots.animate(frames, alt="A square turns white.")
    A square turns white.
    """
    pictures, alt = as_frames(frames), as_text(alt, "alt")
    if not (seconds > 0 and hold >= 0):
        raise ValueError(f"seconds = {seconds}, hold = {hold}; expected seconds > 0 and hold >= 0")
    each = max(20, round(1000 * seconds / len(pictures)))
    images = [Image.fromarray(picture) for picture in pictures]
    durations = [each] * (len(images) - 1) + [each + round(1000 * hold)]
    moving = _encoded(images[0], save_all=True, append_images=images[1:], duration=durations, loop=0, quality=quality)
    height, width = pictures[0].shape[:2]
    attributes = f'width="{width}" height="{height}" alt="{html.escape(alt)}"'
    element = (
        f'<figure class="motion" style="max-width:{max(width, 360)}px;margin:.75rem auto;padding:0;color:inherit"><style>{_STYLE}</style>'
        f'<img class="moving dark-light" src="{data_uri(moving)}" {attributes}>'
        f'<img class="still dark-light" src="{data_uri(webp(pictures[-1], quality))}" {attributes}>'
        f'<label><input type="checkbox">Pause</label>{figcaption(caption)}</figure>'
    )
    return Animation(within(element, limit, "this animation"), alt, moving)


def figcaption(caption: str | None) -> str:
    """The caption as an element, or nothing."""
    return f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
