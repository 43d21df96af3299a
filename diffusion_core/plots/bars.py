"""Where a network's parameters and multiply-adds are, as bars."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from diffusion_core.models.anatomy import Stage

from .style import DATA, NOISE, WIDTH


def costs(stages: Sequence[Stage]) -> Figure:
    """Draw where a network's parameters and its multiply-adds are: a bar a stage, as a share of the whole, in the order of the forward pass.

    stages: from `models.stages`. Returns the figure. Raises ValueError for a network without parameters or without multiply-adds.

    >>> import torch
    >>> from diffusion_core import MLP, plots
    >>> from diffusion_core.models import stages
    >>> figure = plots.costs(stages(MLP(2), torch.zeros(1, 2), torch.zeros(1)))
    >>> [round(sum(bar.get_width() for bar in ax.patches)) for ax in figure.axes]
    [100, 100]
    """
    inner = [stage for stage in stages if stage.kind not in ("input", "output")]
    totals = sum(stage.parameters for stage in inner), sum(stage.multiply_adds for stage in inner)
    if min(totals) == 0:
        raise ValueError(f"the stages hold {totals[0]} parameters and {totals[1]} multiply-adds; nothing to share out")
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.29 * len(inner) + 0.75), sharey=True)
    rows = range(len(inner))
    for ax, total, title, values, color in (
        (axes[0], totals[0], "parameters", [stage.parameters for stage in inner], NOISE),
        (axes[1], totals[1], "multiply-adds", [stage.multiply_adds for stage in inner], DATA),
    ):
        shares = [100 * value / total for value in values]
        ax.barh(rows, shares, color=color, height=0.68)
        for row, share in zip(rows, shares):
            ax.text(share + 1, row, f"{share:.0f} %" if share >= 0.5 else "", va="center", fontsize=10, color="#4a515b")
        ax.set(title=f"{_rounded(total)} {title}", xlim=(0, 1.25 * max(shares)), xticks=[])
        ax.title.set_fontsize(12)
        ax.spines["bottom"].set_visible(False)
        ax.tick_params(left=False)
        ax.grid(False)
    axes[0].set_yticks(list(rows), [stage.name for stage in inner])
    axes[0].invert_yaxis()
    return figure


def _rounded(n: int) -> str:
    return f"{n / 1e6:.3g} M" if n >= 1e6 else f"{n / 1e3:.0f} k" if n >= 1e3 else str(n)
