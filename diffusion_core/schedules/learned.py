r"""A path that is learned: the log-SNR is a decreasing network of t (Variational Diffusion Models, Kingma et al. 2021). Chapter 07."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_core.doors import on_cpu, require_callable
from diffusion_core.schedules.base import Schedule, Time


class Learned(nn.Module, Schedule):
    r"""Variance-preserving with $\lambda_t$ = `net(t)`: $\alpha^2=\mathrm{sigmoid}(\lambda_t)$, $\sigma^2=\mathrm{sigmoid}(-\lambda_t)$.

    net: float64 (B,) or () -> the same shape, strictly decreasing, such as `MonotoneLogSNR`. Its log-SNR is finite at both ends, so this
    path has a floor $\sigma(0)>0$ and $\alpha(0)=\sqrt{1-\sigma(0)^2}$; the inverse is found by bisection. Times move to the net's device and back.
    Raises ValueError when the net does not decrease.

    >>> import torch
    >>> from diffusion_core import Learned, MonotoneLogSNR
    >>> schedule = Learned(MonotoneLogSNR(lowest=-5.0, highest=10.0))
    >>> [round(bound, 6) for bound in schedule.log_snr_range()]
    [-5.0, 10.0]
    >>> alpha, sigma = schedule(torch.tensor([0.0, 0.5, 1.0]))
    >>> torch.allclose(alpha**2 + sigma**2, torch.ones(3)), alpha.requires_grad
    (True, True)
    """

    def __init__(self, net: Callable[[Tensor], Tensor]):
        super().__init__()
        require_callable(net, "net", "t -> log-SNR, such as MonotoneLogSNR()")
        self.net = net
        with torch.no_grad():
            lam = self._log_snr(torch.linspace(0, 1, 257, dtype=torch.float64))
        if lam.shape != (257,):
            raise ValueError(f"the net of a learned schedule must keep the shape of t: got {tuple(lam.shape)} for t of shape (257,)")
        if not bool((lam.isfinite().all()) & (lam.diff() < 0).all()):
            raise ValueError("the net of a learned schedule must give finite log-SNRs that decrease from t = 0 to t = 1; see MonotoneLogSNR")

    def __call__(self, t: Time) -> tuple[Tensor, Tensor]:
        return Schedule.__call__(self, t)

    def _log_snr(self, t: Tensor) -> Tensor:
        home = next((p.device for p in self.parameters()), t.device)
        return self.net(t.to(home)).to(t.device)

    def _alpha(self, t: Tensor) -> Tensor:
        return torch.exp(0.5 * F.logsigmoid(self._log_snr(t)))

    def _sigma2(self, t: Tensor) -> Tensor:
        return torch.sigmoid(-self._log_snr(t))

    @torch.no_grad()
    def _time(self, log_snr: Tensor) -> Tensor:
        low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
        for _ in range(60):
            middle = (low + high) / 2
            noisier = self._log_snr(middle) < log_snr
            low, high = torch.where(noisier, low, middle), torch.where(noisier, middle, high)
        return (low + high) / 2


class MonotoneLogSNR(nn.Module):
    r"""$\lambda(t)=\lambda_0+(\lambda_1-\lambda_0)\,\frac{h(t)-h(0)}{h(1)-h(0)}$ with $h(t)=a_0t+\sum_ka_k\,\mathrm{sigmoid}(b_kt+c_k)$, all $a,b>0$.

    Increasing h by construction, ends fixed at (highest, lowest) log-SNR; float64 parameters. Kingma et al. 2021, appendix H, made small.

    >>> import torch
    >>> from diffusion_core import MonotoneLogSNR
    >>> net = MonotoneLogSNR(generator=torch.Generator().manual_seed(0))
    >>> log_snr = net(torch.linspace(0, 1, 101, dtype=torch.float64))
    >>> bool((log_snr.diff() < 0).all())
    True
    >>> [round(end, 6) for end in log_snr[[0, -1]].tolist()]
    [13.3, -5.0]
    """

    def __init__(self, lowest: float = -5.0, highest: float = 13.3, features: int = 16, generator: torch.Generator | None = None):
        super().__init__()
        if not -math.inf < lowest < highest < math.inf or features < 1:
            raise ValueError(f"need finite lowest < highest log-SNR and at least one feature, got {lowest}, {highest} and {features}")
        self.lowest, self.highest = lowest, highest
        self.slope = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.heights = nn.Parameter(torch.full((features,), -2.0, dtype=torch.float64))
        self.steepness = nn.Parameter(torch.full((features,), 2.0, dtype=torch.float64))
        self.centers = nn.Parameter(torch.rand(features, generator=on_cpu(generator), dtype=torch.float64))

    def _increasing(self, t: Tensor) -> Tensor:
        steep = F.softplus(self.steepness) * 4
        bumps = F.softplus(self.heights) * torch.sigmoid(steep * (t[..., None] - self.centers))
        return F.softplus(self.slope) * t + bumps.sum(-1)

    def forward(self, t: Tensor) -> Tensor:
        ends = self._increasing(torch.tensor([0.0, 1.0], dtype=t.dtype, device=t.device))
        return self.highest + (self.lowest - self.highest) * (self._increasing(t) - ends[0]) / (ends[1] - ends[0])
