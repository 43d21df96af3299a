r"""Solvers of the probability flow: second and higher order on the same grids as `ddim`, which is the first. The flow is derived in chapter 16.

With $l=\log(\alpha/\sigma)$, half the log-SNR, the flow is $\frac{d(x/\alpha)}{d(\sigma/\alpha)}=\hat\epsilon$, or $\frac{d(x/\sigma)}{dl}=e^l\hat x_0$, whose solution from t to s is
$x_s=\frac{\sigma_s}{\sigma_t}x_t+\alpha_s\int_{l_t}^{l_s}e^{l-l_s}\,\hat x_0\,dl$. `heun` solves the first form; the others put a polynomial for $\hat x_0$ into the integral. Errors fall as
the step to the power of the order. The step to $\sigma=0$ has $l_s=\infty$ and returns the denoised image.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from diffusion_core.denoiser import Denoise
from diffusion_core.doors import is_count
from diffusion_core.samplers.grids import checked_grid, require_signal
from diffusion_core.samplers.walks import floor_step
from diffusion_core.schedules import Schedule


def heun(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor) -> Iterator[Tensor]:
    r"""$y_s=y_t+(\varsigma_s-\varsigma_t)\frac{d_t+d_s}2$, $y=x/\alpha$, $\varsigma=\sigma/\alpha$, $d=\frac{y-\hat x_0}\varsigma$, with $d_s$ at Euler's $y_t+(\varsigma_s-\varsigma_t)d_t$. Karras et al. 2022, algorithm 1.

    Computed as $x_s=x'+\alpha_s\frac{1-r}{2r}(\hat x_0'-\hat x_0)$, $r=\varsigma_s/\varsigma_t$, with $\hat x_0'$ the image at Euler's x': the same, and without differences of large
    numbers where alpha is small. Order 2, on any path. Two calls of the denoiser a step and one on the step to sigma = 0, which is not corrected: 2n - 1 for
    n steps. Raises ValueError for a bad grid and where alpha = 0.

    >>> import torch
    >>> from diffusion_core import EDM, Gaussian, heun, karras_grid, last
    >>> schedule, noise = EDM(), torch.full((1, 1), 80.0)
    >>> denoise = Gaussian([0.0], 1.0).denoiser(schedule)
    >>> grids = [karras_grid(schedule, n) for n in (10, 20, 40)]
    >>> ends = [last(heun(denoise, schedule, noise, times)) for times in grids]
    >>> [round(end.item(), 3) for end in ends]  # exact: 80 / (1 + 80**2) ** 0.5
    [1.175, 1.035, 1.008]
    """
    denoise, times, alpha, sigma = checked_grid(denoise, schedule, x, times)
    require_signal(times, alpha)
    ratio = (sigma[1:] * alpha[:-1]) / (sigma[:-1] * alpha[1:])
    euler = alpha[1:] * (1 - ratio)
    correction = torch.where(ratio > 0, euler / (2 * ratio), 0.0)
    yield x
    for t, s, c_x, c_0, c_change in zip(times, times[1:], (sigma[1:] / sigma[:-1]).tolist(), euler.tolist(), correction.tolist()):
        image = denoise(x, t)
        x = c_x * x + c_0 * image
        if c_x > 0:
            x = x + c_change * (denoise(x, s) - image)
        yield x
    yield from floor_step(denoise, schedule, x, times)


def dpmpp_2m(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor) -> Iterator[Tensor]:
    r"""$x_s=\frac{\sigma_s}{\sigma_t}x_t+\alpha_s(1-e^{-h})\big(\hat x_0+\frac h{2h'}(\hat x_0-\hat x_0')\big)$, $h=l_s-l_t$; $\hat x_0'$ and h' are those of the step before. Lu et al. 2022, algorithm 2.

    DPM-Solver++(2M). Order 2, one call of the denoiser a step. The first step, the step after one from alpha = 0, and the step to sigma = 0 are those of
    `ddim`. Raises ValueError for a bad grid.

    >>> import torch
    >>> from diffusion_core import EDM, Gaussian, dpmpp_2m, last, log_snr_grid
    >>> schedule, noise = EDM(), torch.full((1, 1), 80.0)
    >>> denoise = Gaussian([0.0], 1.0).denoiser(schedule)
    >>> grids = [log_snr_grid(schedule, n, hi=12.0) for n in (10, 20, 40)]
    >>> ends = [last(dpmpp_2m(denoise, schedule, noise, times)) for times in grids]
    >>> [round(end.item(), 3) for end in ends]  # exact: 80 / (1 + 80**2) ** 0.5
    [1.042, 1.016, 1.004]
    """
    denoise, times, alpha, sigma = checked_grid(denoise, schedule, x, times)
    half_log_snr = alpha.log() - sigma.log()
    h = half_log_snr.diff()
    gain = -alpha[1:] * torch.expm1(-h)
    back = torch.zeros_like(h)
    back[1:] = torch.where(h[1:].isfinite(), h[1:] / (2 * h[:-1]), 0.0)
    yield x
    before = None
    for t, keep, c_0, c_before in zip(times, (sigma[1:] / sigma[:-1]).tolist(), (gain * (1 + back)).tolist(), (-gain * back).tolist()):
        image = denoise(x, t)
        x = keep * x + c_0 * image
        if c_before != 0:
            x = x + c_before * before
        before = image
        yield x
    yield from floor_step(denoise, schedule, x, times)


def exponential_multistep(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, order: int = 3) -> Iterator[Tensor]:
    r"""$x_s=\frac{\sigma_s}{\sigma_t}x_t+\alpha_s\sum_jw_j\hat x_0^{(j)}$: the polynomial in l through the last `order` denoised images, integrated exactly. Exponential Adams-Bashforth.

    $w_j=\int_{l_t}^{l_s}e^{l-l_s}\prod_{i\ne j}\frac{l-l_i}{l_j-l_i}dl$. Order 1 is `ddim`; order 2 is `dpmpp_2m` up to the size of its error. One call of the denoiser a step.
    The polynomial grows from one image to `order` of them, anew after a step from alpha = 0. The first step so makes an error of $h^2$: nothing where the grid
    starts in noise and the image hardly changes, but it keeps the whole at order 2 where it starts late. Hochbruck and Ostermann 2010; DEIS (Zhang and Chen 2023)
    does the same with $\hat\epsilon$. Raises ValueError for an order outside 1..4 and for a bad grid.

    >>> import torch
    >>> from diffusion_core import EDM, Gaussian, last, log_snr_grid
    >>> from diffusion_core import exponential_multistep
    >>> schedule, noise = EDM(), torch.full((1, 1), 80.0)
    >>> denoise = Gaussian([0.0], 1.0).denoiser(schedule)
    >>> grids = [log_snr_grid(schedule, n, hi=12.0) for n in (10, 20, 40)]
    >>> walks = [(denoise, schedule, noise, times) for times in grids]
    >>> ends = [last(exponential_multistep(*walk)) for walk in walks]
    >>> [round(end.item(), 3) for end in ends]  # exact: 80 / (1 + 80**2) ** 0.5
    [1.053, 1.005, 1.0]
    """
    _checked_order(order, 4)
    yield from _multistep(denoise, schedule, x, times, order, 0)


def unipc(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, order: int | None = None, corrector: int | None = None) -> Iterator[Tensor]:
    r"""`exponential_multistep` whose every step is taken again, once the image at its end is known: the polynomial now goes through that image and `corrector` - 1 before it.

    Still one call of the denoiser a step, since the next step starts from the same image: predict, evaluate, correct. Zhao et al. 2023 (UniPC), whose UniP-p
    is order p and whose UniC-p is corrector p + 1. order: 1 to 4; None takes 2 for up to 10 steps, with the last as in `ddim`, and 3 for more, which was
    best on mixtures. corrector: 1 to 5, `order` where None is given. Errors fall with the power min(order + 1, corrector), with 3 at
    most where the grid does not start in noise. The last step, and one from alpha = 0, stay as predicted.

    Each state after the start is yielded corrected. Raises ValueError for an order outside 1..4, a corrector outside 1..5, and for a bad grid.

    >>> import torch
    >>> from diffusion_core import EDM, Gaussian, asinh_grid, last, unipc
    >>> schedule, noise = EDM(), torch.full((1, 1), 80.0)
    >>> denoise = Gaussian([0.0], 1.0).denoiser(schedule)
    >>> grids = [asinh_grid(schedule, n) for n in (10, 20, 40)]
    >>> ends = [last(unipc(denoise, schedule, noise, times)) for times in grids]
    >>> [round(end.item(), 3) for end in ends]  # exact: 80 / (1 + 80**2) ** 0.5
    [1.064, 1.001, 1.0]
    """
    few = order is None and torch.as_tensor(times).numel() <= 11
    order = (2 if few else 3) if order is None else order
    _checked_order(order, 4)
    corrector = order if corrector is None else corrector
    _checked_order(corrector, 5)
    yield from _multistep(denoise, schedule, x, times, order, corrector, few)


def _multistep(denoise: Denoise, schedule: Schedule, x: Tensor, times: Tensor, order: int, corrector: int, plain_end: bool = False) -> Iterator[Tensor]:
    denoise, times, alpha, sigma = checked_grid(denoise, schedule, x, times)
    half_log_snr = (alpha.log() - sigma.log()).numpy()
    scale = alpha[1:, None].numpy()
    weights = multistep_weights(half_log_snr, order)
    if plain_end:
        weights[-1] = weights[-1].sum() * np.eye(order)[0]
    predict = (scale * weights).tolist()
    correct = (scale * multistep_weights(half_log_snr, corrector, ahead=True)).tolist() if corrector else []
    keep, n = (sigma[1:] / sigma[:-1]).tolist(), len(times) - 1
    yield x
    images = [denoise(x, times[0])]  # the newest first
    for i in range(n):
        start = keep[i] * x
        x = _added(start, predict[i], images)
        if i + 1 < n:
            images = [denoise(x, times[i + 1]), *images[:4]]
            if corrector and np.isfinite(half_log_snr[i]):
                x = _added(start, correct[i], images)
        yield x
    yield from floor_step(denoise, schedule, x, times)


def _added(x: Tensor, weights: list[float], images: list[Tensor]) -> Tensor:
    for weight, image in zip(weights, images):
        if weight != 0:
            x = x + weight * image
    return x


def multistep_weights(half_log_snr: np.ndarray, order: int, ahead: bool = False) -> np.ndarray:
    r"""(n, order): $w_j=\int_{l_i}^{l_{i+1}}e^{l-l_{i+1}}L_j(l)\,dl$ for each of the n steps of the grid $l_0<\dots<l_n$, the newest image first.

    $L_j$ is Lagrange's polynomial through the knots i, i - 1, .. (with `ahead` i + 1, i, ..), as many as there are up to `order`. By Gauss-Legendre with 32 nodes, which
    is exact to rounding and free of the cancellation of $(e^h-1-h)/h^2$. Knots with infinite l carry no polynomial: a step from or to one has the weights (1, 0, ..).
    """
    l = np.asarray(half_log_snr, dtype=np.float64)
    n = len(l) - 1
    knots = np.arange(n)[:, None] + ahead - np.arange(order)  # (n, order)
    known = (knots >= 0) & np.isfinite(l[knots])
    at = np.where(known, l[knots], np.nan)
    nodes, weights = np.polynomial.legendre.leggauss(32)
    inner = np.isfinite(np.diff(l))
    low, high = np.where(inner, l[:-1], 0.0)[:, None], np.where(inner, l[1:], 1.0)[:, None]
    u = (low + high) / 2 + (high - low) / 2 * nodes  # (n, 32)
    weights = weights * (high - low) / 2 * np.exp(u - high)
    basis = np.ones((order, n, len(nodes)))
    for j in range(order):
        for i in range(order):
            if i != j:
                factor = (u - at[:, i, None]) / (at[:, j] - at[:, i])[:, None]
                basis[j] *= np.where(known[:, i, None], factor, 1.0)
    out = np.where(known, np.einsum("jnq,nq->nj", basis, weights), 0.0)
    out[~inner] = np.eye(order)[0]
    return out


def _checked_order(order: int, most: int) -> None:
    if not is_count(order) or order > most:
        raise ValueError(f"the polynomial goes through 1 to {most} denoised images, got {order!r}")
