r"""Times drawn where the loss is large, and the weights that keep the mean of the loss what it was.

A time sampler of `fit` may have two methods more than its call: `weights(t)`, which the losses are multiplied by, and `update(t, losses)`, which
`fit` calls after each step with the losses before that.
"""

import torch
from torch import Tensor

from diffusion_core.doors import on_cpu, require_count
from diffusion_core.schedules import Schedule, double

__all__ = ["LossSecondMoment"]


class LossSecondMoment:
    r"""Times $i/N$, $i\in\{1,..,N\}$, with $p_i\propto\sqrt{\mathbb E[L_i^2]}$, and weights $\frac1{Np_i}$. Nichol and Dhariwal 2021, eq. 18.

    $\mathbb E[L_i^2]$ is the mean over the last `history` losses at each i; until every i has that many, p is uniform. A share `floor` of p stays uniform, so that
    no time is lost for good and no weight exceeds 1 / floor (their code has .001 too, the paper does not mention it).
    The weighted loss has the mean that uniform i give, $\frac1N\sum_iL_i$, and for losses that do not vary at fixed i the least variance.
    Raises ValueError for settings or losses that cannot be meant.

    >>> import torch
    >>> from diffusion_core import LossSecondMoment
    >>> times = LossSecondMoment(steps=2, history=1)
    >>> times.update(torch.tensor([0.5, 1.0]), torch.tensor([1.0, 3.0]))
    >>> [round(p, 2) for p in times.probabilities.tolist()]
    [0.25, 0.75]
    >>> [round(w, 2) for w in times.weights(torch.tensor([0.5, 1.0])).tolist()]
    [2.0, 0.67]
    """

    def __init__(self, steps: int, history: int = 10, floor: float = 1e-3):
        if not 0 < floor <= 1:
            raise ValueError(f"floor must lie in (0, 1], got {floor}")
        self.steps, self.history, self.floor = require_count(steps, "steps"), require_count(history, "history"), floor
        self._squares = torch.zeros(self.steps, self.history, dtype=torch.float64)
        self._seen = [0] * self.steps

    @property
    def probabilities(self) -> Tensor:
        """(N,) p of i = 1, .., N, float64."""
        uniform = torch.full((self.steps,), 1 / self.steps, dtype=torch.float64)
        root = self._squares.mean(1).sqrt()
        if min(self._seen) < self.history or float(root.sum()) == 0:
            return uniform
        return (1 - self.floor) * root / root.sum() + self.floor * uniform

    def __call__(self, schedule: Schedule, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n,) independent times, float64, on the CPU."""
        return double(torch.multinomial(self.probabilities, n, replacement=True, generator=on_cpu(generator)) + 1) / self.steps

    def weights(self, t: Tensor) -> Tensor:
        r"""(n,) $\frac1{Np_i}$ for times drawn from the present p."""
        return 1 / (self.steps * self.probabilities[self._index(t)])

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Remember the unweighted losses (n,) at times t (n,)."""
        if losses.shape != t.shape or not bool(losses.isfinite().all()):
            raise ValueError(f"expected one finite loss for each of the {tuple(t.shape)} times, got shape {tuple(losses.shape)}")
        for i, square in zip(self._index(t).tolist(), double(losses.detach()).square().tolist()):
            self._squares[i, self._seen[i] % self.history] = square
            self._seen[i] += 1

    def state_dict(self) -> dict[str, Tensor]:
        """What has been learned: the squares (N, history) of the last losses and how many each time has seen (N,)."""
        return {"squares": self._squares.clone(), "seen": torch.tensor(self._seen)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state_dict`. Raises ValueError for one of other settings."""
        if set(state) != {"squares", "seen"} or state["squares"].shape != self._squares.shape or state["seen"].shape != (self.steps,):
            shapes = {name: tuple(value.shape) for name, value in state.items()}
            raise ValueError(f"expected the state of LossSecondMoment({self.steps}, history={self.history}), got {shapes}; build it with the settings that it was saved with")
        self._squares, self._seen = double(state["squares"]).clone(), state["seen"].tolist()

    def _index(self, t: Tensor) -> Tensor:
        """i - 1 of the times i / N."""
        return knots(t, self.steps).long().cpu() - 1


def knots(t: Tensor | float, steps: int) -> Tensor:
    """i of the times i / N, float64. Raises ValueError for other times than those."""
    t = double(t)
    i = (t * steps).round()
    if not bool(((i >= 1) & (i <= steps) & ((t * steps - i).abs() < 1e-2)).all()):
        raise ValueError(f"expected times i / {steps} with i in 1..{steps}; draw them from discrete_times({steps}) or LossSecondMoment({steps})")
    return i
