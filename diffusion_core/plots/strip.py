"""The scrub strip: a slider over pre-rendered frames, in one HTML element that needs no kernel, no network and no library.

The element is `<figure class="scrub">` with one frame visible, a play button and one `<input type="range">`. It works with the mouse, by touch and
by keyboard (arrow keys, Home, End, page keys); the frame's label is shown and is what a screen reader announces as the slider's value. All
behavior sits in the controls' own event attributes and reaches no further than their own figure, so that any number of strips may stand on one
page, the same one twice included. Without scripts the first frame shown stays, without its controls.
"""

import html
from collections.abc import Iterable, Sequence
from typing import Any

from .motion import Element, as_frames, as_text, data_uri, figcaption, webp, within

LIMIT = 400_000

_STYLE = """
.scrub img{display:block;width:auto;max-width:100%;height:auto;margin:0 auto;padding:0!important;background:#fff;border-radius:.4rem}
.scrub img[hidden]{display:none!important}
.scrub .bar{display:flex;align-items:center;gap:.75rem;margin:.35rem 0 0}
.scrub input{flex:1;min-width:0;height:44px;margin:0;cursor:pointer;touch-action:pan-y;appearance:none;background:none;border-radius:.4rem;color:inherit}
.scrub input::-webkit-slider-runnable-track{height:4px;border-radius:2px;background:#8b9099}
.scrub input::-moz-range-track{height:4px;border-radius:2px;background:#8b9099}
.scrub input::-webkit-slider-thumb{appearance:none;width:26px;height:26px;margin-top:-11px;border:3px solid #fff;border-radius:50%;background:#0b62c4}
.scrub input::-moz-range-thumb{width:20px;height:20px;border:3px solid #fff;border-radius:50%;background:#0b62c4}
.scrub output{min-width:4.5em;text-align:right;font-variant-numeric:tabular-nums;color:inherit}
.scrub button{flex:none;width:44px;height:44px;padding:0;border:1px solid currentColor;border-radius:50%;background:none;color:inherit;cursor:pointer}
.scrub button svg{display:block;width:18px;height:18px;margin:auto;fill:currentColor}
.scrub button:focus-visible,.scrub input:focus-visible{outline:3px solid var(--pst-color-primary,#0b62c4);outline-offset:2px}
.scrub .pause,.scrub [aria-label=Pause] .play{display:none}
.scrub [aria-label=Pause] .pause{display:block}
.scrub figcaption{margin:.25rem 0 0;font-size:.95rem;text-align:left}
html[data-theme=dark] .scrub img{filter:brightness(.92)}
.text_html:has(>.scrub){background:none!important;color:inherit!important;padding:0!important}
@media (prefers-reduced-motion:reduce){.scrub button{display:none!important}}
@media (scripting:none){.scrub .bar{display:none!important}}
"""

_SHOW = (
    "var s=this.closest('.scrub'),f=s.querySelectorAll('img'),i=+this.value;"
    "f.forEach(function(m,k){m.hidden=k!==i});"
    "var t=f[i].dataset.label;this.setAttribute('aria-valuetext',t);s.querySelector('output').textContent=t"
)

_PLAY = (
    "var b=this,r=b.closest('.scrub').querySelector('input');"
    "function go(v){r.value=v;r.dispatchEvent(new Event('input'))}"
    "function stop(){clearInterval(b.timer);b.timer=0;b.setAttribute('aria-label','Play')}"
    "if(b.timer)return stop();"
    "if(+r.value>=+r.max)go(0);"
    "b.setAttribute('aria-label','Pause');"
    "b.timer=setInterval(function(){if(!b.isConnected||+r.value>=+r.max)return stop();go(+r.value+1);if(+r.value>=+r.max)stop()},MS)"
)

_ICON = '<svg viewBox="0 0 16 16" aria-hidden="true"><path class="play" d="M3 1v14l11-7z"/><path class="pause" d="M3 1h3v14H3zM10 1h3v14h-3z"/></svg>'


def scrub(
    frames: Iterable[Any],
    labels: Sequence[str],
    *,
    alt: str,
    name: str = "Time",
    caption: str | None = None,
    start: int = 0,
    seconds: float = 4.0,
    quality: int = 70,
    limit: int = LIMIT,
) -> Element:
    """A slider over `frames`, one label a frame, such as "t = 0.35".

    frames: figures (drawn and closed) or uint8 arrays (H, W, 3) of one size. alt: what the frames show; a frame's own alt text is "alt: label".
    name: what the slider is called ("Time", "Guidance scale"). start: the frame shown first. seconds: how long Play takes from end to end.
    Raises ValueError for fewer than two frames, frames of different sizes, labels that are not one for each frame, an empty alt or name, a
    start outside the frames, or an element of more than `limit` bytes.

    >>> import torch
    >>> from diffusion_core import plots
    >>> squares = [torch.full((1, 1, 8, 8), gray) for gray in (-1.0, 0.0, 1.0)]
    >>> frames, labels = list(map(plots.tile, squares)), ["t = 0", "t = 0.5", "t = 1"]
    >>> strip = plots.scrub(frames, labels, alt="A square turns white")
    >>> strip.html.count("<img"), 'alt="A square turns white: t = 1"' in strip.html
    (3, True)
    """
    pictures, alt, name = as_frames(frames), as_text(alt, "alt"), as_text(name, "name")
    labels = [as_text(label, "a label") for label in labels]
    if len(pictures) < 2 or len(labels) != len(pictures):
        raise ValueError(f"{len(pictures)} frames and {len(labels)} labels; expected at least two frames and one label for each")
    if not 0 <= start < len(pictures):
        raise ValueError(f"start = {start}; expected a frame's index, 0 to {len(pictures) - 1}")
    if not seconds > 0:
        raise ValueError(f"seconds = {seconds}; expected a positive number")
    height, width = pictures[0].shape[:2]
    images = "".join(
        f'<img class="dark-light" src="{data_uri(webp(picture, quality))}" width="{width}" height="{height}" decoding="sync" '
        f'alt="{html.escape(alt)}: {html.escape(label)}" data-label="{html.escape(label)}"{"" if i == start else " hidden"}>'
        for i, (picture, label) in enumerate(zip(pictures, labels))
    )
    label = html.escape(labels[start])
    play = _PLAY.replace("MS", str(max(40, round(1000 * seconds / (len(pictures) - 1)))))
    element = (
        f'<figure class="scrub" style="max-width:{max(width, 360)}px;margin:.75rem auto;padding:0;color:inherit">'
        f'<style>{_STYLE}</style>{images}<div class="bar">'
        f'<button type="button" aria-label="Play" onclick="{play}">{_ICON}</button>'
        f'<input type="range" min="0" max="{len(pictures) - 1}" step="1" value="{start}" aria-label="{html.escape(name)}" '
        f'aria-valuetext="{label}" autocomplete="off" oninput="{_SHOW}">'
        f'<output aria-live="off">{label}</output></div>{figcaption(caption)}</figure>'
    )
    return Element(within(element, limit, "this strip"), alt)
