"""The house style of the book's figures: one palette, one type size, one paper.

Every figure is an opaque white card, so that its colors mean the same in the light and in the dark theme. A default figure is 6.4 inches
wide with 12-point type: at the width of a page's column the type is as large as the text around it, and on a phone it is still read.

Colors are named for what they stand for, never for their hue. `TRAVELLERS` are the eight fixed noise seeds, in order. The travellers
are at least 30 apart (CIE 1976 color difference) for normal, protanopic and deuteranopic sight, the roles at least 20; the tests measure it.
"""

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.colors import LinearSegmentedColormap

DATA = "#0b62c4"
NOISE = "#8b9099"
MODEL = "#e06c00"
EXACT = "#1b1f24"
WRONG = "#a8105f"
TRAVELLERS = ("#0043c8", "#de8500", "#649b64", "#b1000b", "#379bff", "#c885b1", "#2c2c64", "#6f162c")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
INK = "#1b1f24"
PAPER = "#ffffff"

SEQUENTIAL = LinearSegmentedColormap.from_list("density", [PAPER, "#dbe8f6", "#a3c6ea", "#5c97d6", "#1f62b5", "#0b2f66"])
DIVERGING = LinearSegmentedColormap.from_list("signed", ["#0b3d91", "#4f8fd9", "#c3dcf3", PAPER, "#f7d2ae", "#e0853a", "#8a3c00"])

WIDTH = 6.4
SQUARE = (4.4, 4.4)
DPI = 144

STYLE = {
    "figure.figsize": (WIDTH, 3.7),
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "mathtext.fontset": "cm",
    "axes.titlesize": 13,
    "axes.titleweight": "normal",
    "axes.labelsize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#737a84",
    "xtick.color": "#4a515b",
    "ytick.color": "#4a515b",
    "axes.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.2,
    "lines.markersize": 6,
    "axes.prop_cycle": cycler(color=[DATA, MODEL, EXACT, WRONG, NOISE]),
    "image.cmap": SEQUENTIAL.name,
    "image.interpolation": "nearest",
}


def use_style() -> None:
    """Make the house style the default of every figure that follows; a notebook calls it once, in its first cell.

    Inside a notebook figures are then stored uncropped, so that type has the same size in all of them. They are plain PNG at 144 dots an
    inch: the "retina" format adds a height in pixels, which a phone keeps while it narrows the width.

    >>> import matplotlib.pyplot as plt
    >>> from diffusion_core import plots
    >>> with plt.rc_context():
    ...     plots.use_style()
    ...     print(plt.rcParams["figure.figsize"], plt.rcParams["font.size"])
    [6.4, 3.7] 12.0
    """
    for colormap in (SEQUENTIAL, DIVERGING):
        if colormap.name not in mpl.colormaps:
            mpl.colormaps.register(colormap)
    plt.style.use(STYLE)
    if "inline" in plt.get_backend():
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("png", bbox_inches=None)
