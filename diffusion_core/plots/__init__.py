"""Figures of the book: one house style, pictures of distributions, and motion that needs no kernel.

A notebook begins with `plots.use_style()`. Drawing functions take an optional `ax` and return the axes, so that they compose:
`trajectories_1d(times, states, ax=density_over_time(log_prob, times))`. `animate` and `scrub` return an HTML element and want an alt text.
Needs the extra `plot` (matplotlib and pillow).
"""

from diffusion_core.extras import needing

with needing("diffusion_core.plots", extra="plot"):
    from .bars import costs
    from .fields import density_1d, density_2d, density_over_time, histogram, score_field
    from .images import image_grid, tile
    from .motion import Animation, Element, animate, frame
    from .networks import network
    from .paths import points_2d, trajectories_1d, trajectories_2d
    from .strip import scrub
    from .style import DATA, DIVERGING, EXACT, INK, MARKERS, MODEL, NOISE, PAPER, SEQUENTIAL, TRAVELLERS, WRONG, use_style

__all__ = [
    "Animation",
    "DATA",
    "DIVERGING",
    "EXACT",
    "Element",
    "INK",
    "MARKERS",
    "MODEL",
    "NOISE",
    "PAPER",
    "SEQUENTIAL",
    "TRAVELLERS",
    "WRONG",
    "animate",
    "costs",
    "density_1d",
    "density_2d",
    "density_over_time",
    "frame",
    "histogram",
    "image_grid",
    "network",
    "points_2d",
    "score_field",
    "scrub",
    "tile",
    "trajectories_1d",
    "trajectories_2d",
    "use_style",
]
