r"""Four ways to fit a score s(x) to samples of p whose score $\nabla\log p$ is not known. All return (B,), unreduced, summed over the coordinates.

Their means over $x\sim p$ differ by constants, numbers that do not depend on s:

$$\underbrace{\mathbb E[\tfrac12\|s\|^2+\mathrm{tr}\,\nabla s]}_{implicit,\ sliced}=\underbrace{\mathbb E\tfrac12\|s-\nabla\log p\|^2}_{explicit}-\tfrac12\mathbb E\|\nabla\log p\|^2,$$

$$\begin{aligned}\underbrace{\mathbb E\tfrac12\|s(\tilde x)+z/\sigma\|^2}_{denoising}=\ &\mathbb E_{q_\sigma}\tfrac12\|s-\nabla\log q_\sigma\|^2\\
&+\tfrac12\Big(\frac d{\sigma^2}-\mathbb E_{q_\sigma}\|\nabla\log q_\sigma\|^2\Big)\end{aligned}$$

with $q_\sigma$ the law of $\tilde x=x+\sigma z$, not p: denoising fits the score of the noised data. The first asks that nothing of $p\,s$ leave through an edge of the data's domain: it fails for a density that jumps there.

A score is a callable (B, *D) -> (B, *D) that treats each sample alone: a network, a mixture's exact one, `score_of(log_prob)` of an energy model, or
`score_at(denoise, schedule, t)`. Derived in chapters 09 and 10.
"""

import torch
from torch import Tensor

from diffusion_core.jacobians import Field, divergence, draw_probes, evaluated, hutchinson
from diffusion_core.schedules import double, normal_like, per_sample

__all__ = ["denoising_score_matching", "explicit_score_matching", "implicit_score_matching", "sliced_score_matching", "sliced_score_matching_vr"]


def explicit_score_matching(score: Field, x: Tensor, true_score: Field) -> Tensor:
    r"""$\frac12\|s(x)-\nabla\log p(x)\|^2$, (B,): what the others stand for, where the true score is known. Its mean is the Fisher divergence of chapter 09 (some authors leave out the half).

    x: (B, *D). Raises ValueError for scores of another shape.

    >>> import torch
    >>> from diffusion_core import explicit_score_matching
    >>> x = torch.zeros(3, 2)
    >>> # off by 2 in both coordinates
    >>> explicit_score_matching(lambda x: 2 - x, x, true_score=lambda x: -x).tolist()
    [4.0, 4.0, 4.0]
    """
    return _half_square(evaluated(score, x) - evaluated(true_score, x))


def implicit_score_matching(score: Field, x: Tensor) -> Tensor:
    r"""$\frac12\|s(x)\|^2+\mathrm{tr}\,\nabla s(x)$, (B,), with the exact trace: d backward passes. Hyvärinen 2005, theorem 1.

    x: (B, *D). Raises ValueError for a score of another shape, or one that cannot be differentiated.

    >>> import torch
    >>> from diffusion_core import implicit_score_matching
    >>> x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    >>> implicit_score_matching(lambda x: -x, x).tolist()  # |x|^2 / 2 - 2
    [-2.0, 0.5]
    """
    value, trace = divergence(score, x)
    return _half_square(value) + trace


def sliced_score_matching(score: Field, x: Tensor, probes: int | Tensor = 1, kind: str = "rademacher", generator: torch.Generator | None = None) -> Tensor:
    r"""$\frac1n\sum_k\frac12(v_k^\top s)^2+v_k^\top\nabla s\,v_k$, (B,). Song et al. 2019 (sliced score matching), SSM.

    Unbiased for `implicit_score_matching`, at one backward pass a probe. x: (B, *D). probes, kind, generator: as in `hutchinson`; it raises what that raises.

    >>> import torch
    >>> from diffusion_core import implicit_score_matching, sliced_score_matching
    >>> # on a line every sign is the only direction, and nothing is lost
    >>> x = torch.tensor([[1.0], [2.0]])
    >>> sliced_score_matching(lambda x: -x, x).tolist()
    [-0.5, 1.0]
    >>> implicit_score_matching(lambda x: -x, x).tolist()
    [-0.5, 1.0]
    """
    v = probes if isinstance(probes, Tensor) else draw_probes(x, probes, kind, generator)
    value, trace = hutchinson(score, x, v)
    slices = (v.to(value) * value).reshape(len(v), len(x), -1).sum(2)
    return 0.5 * slices.square().mean(0) + trace


def sliced_score_matching_vr(score: Field, x: Tensor, probes: int | Tensor = 1, kind: str = "rademacher", generator: torch.Generator | None = None) -> Tensor:
    r"""$\frac12\|s\|^2+\frac1n\sum_kv_k^\top\nabla s\,v_k$, (B,): the square is taken exactly, only the trace is sliced. Song et al. 2019, SSM-VR.

    Unbiased for `implicit_score_matching`, at the price of `sliced_score_matching`. The arguments are the same.

    >>> import torch
    >>> from diffusion_core import implicit_score_matching, sliced_score_matching_vr
    >>> x = torch.tensor([[1.0, 2.0]])
    >>> # signs find the trace of a diagonal Jacobian exactly
    >>> sliced_score_matching_vr(lambda x: -x, x).item()
    0.5
    >>> implicit_score_matching(lambda x: -x, x).item()
    0.5
    """
    value, trace = hutchinson(score, x, probes, kind, generator)
    return _half_square(value) + trace


def denoising_score_matching(score: Field, x: Tensor, sigma: Tensor | float, generator: torch.Generator | None = None) -> Tensor:
    r"""$\frac12\|s(x+\sigma z)+z/\sigma\|^2$, (B,), $z\sim\mathcal N(0,I)$: no derivative of s. Vincent 2011.

    $-z/\sigma$ is the score of $\mathcal N(\tilde x;x,\sigma^2I)$ at $\tilde x$. x: (B, *D). sigma: scalar or (B,); NCSN's $\lambda=\sigma^2$ is
    `sigma**2 * denoising_score_matching(...)`. Raises ValueError unless sigma > 0 and for a score of another shape.

    >>> import torch
    >>> from diffusion_core import denoising_score_matching
    >>> sigma, x = 0.5, torch.zeros(4, 2)
    >>> # the score of a noised point at 0
    >>> loss = denoising_score_matching(lambda noised: -noised / sigma**2, x, sigma)
    >>> torch.allclose(loss, torch.zeros(4), atol=1e-6)
    True
    """
    sigma = double(sigma)
    if not bool(((sigma > 0) & sigma.isfinite()).all()):
        raise ValueError("sigma must be positive and finite: without noise there is no denoising")
    sigma, z = per_sample(sigma, x), normal_like(x, generator)
    return _half_square(evaluated(score, x + sigma * z) + z / sigma)


def _half_square(v: Tensor) -> Tensor:
    return 0.5 * v.square().reshape(len(v), -1).sum(1)
