r"""How far two samples are apart: sliced Wasserstein, energy distance, MMD, Fréchet feature distance, class accuracy.

A distance between finite samples is never zero, even when both come from one distribution, and it depends on how many there are. So a
figure means something only beside its N and its *floor*, the same figure for real data against other real data of the same N:

    got = sliced_wasserstein(samples, real)
    low, spread = floor(sliced_wasserstein, much_real, len(samples), len(real))

Samples are tensors (N, *D) on one device; distances flatten D and are computed in float64 on the CPU.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffusion_core.doors import is_count, on_cpu, require_count
from diffusion_core.models.classifier import Classifier

__all__ = [
    "class_accuracy", "energy_distance", "energy_kernel", "floor", "frechet_distance", "frechet_feature_distance", "gaussian_kernel", "mmd2",
    "permutation_test", "sliced_wasserstein",
]


def _pair(x: Tensor, y: Tensor, least: int = 1) -> tuple[Tensor, Tensor]:
    """Both samples as float64 matrices on the CPU, after a look at their shapes and values."""
    for z in (x, y):
        if not isinstance(z, Tensor):
            raise ValueError(f"a sample must be a tensor (N, *D), got {type(z).__name__}; torch.as_tensor makes one")
    if x.ndim < 2 or x.shape[1:] != y.shape[1:]:
        raise ValueError(f"two samples must be (N, *D) and (M, *D) with the same D, got {tuple(x.shape)} and {tuple(y.shape)}")
    if min(len(x), len(y)) < least:
        raise ValueError(f"each sample needs at least {least} points, got {len(x)} and {len(y)}")
    pair = x.detach().flatten(1).cpu().double(), y.detach().flatten(1).cpu().double()
    if not all(z.isfinite().all() for z in pair):
        raise ValueError("a sample holds NaN or inf, so no distance to it exists; look at the sampler that made it")
    return pair


def sliced_wasserstein(x: Tensor, y: Tensor, projections: int = 256, p: float = 2, generator: torch.Generator | None = None) -> float:
    r"""The Wasserstein distance along random lines, $\big(\mathbb E_\theta\,W_p^p(\theta^\top x,\theta^\top y)\big)^{1/p}$, $\theta$ uniform on the sphere.

    On a line $W_p^p=\int_0^1|F_x^{-1}(u)-F_y^{-1}(u)|^p\,du$: sort both, and integrate the difference of two staircases exactly, also for
    N ≠ M. (`scipy.stats.wasserstein_distance` is this for p = 1 and one line.) The only approximation is the average over `projections`.

    In the units of x. For two Gaussians that differ by a shift m in d dimensions, p = 2: $\|m\|/\sqrt d$. Raises ValueError for samples
    whose shapes do not fit, that are empty or not finite, and unless 1 <= p < inf. Source: Bonneel et al. 2015.

    >>> import torch
    >>> from diffusion_core.metrics import sliced_wasserstein
    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(400, 4, generator=generator)
    >>> round(sliced_wasserstein(x, x + 1.0, generator=generator), 1)
    1.0
    """
    if not 1 <= p < math.inf:
        raise ValueError(f"the order of the distance must be finite and at least 1, got p = {p}")
    projections = require_count(projections, "projections")
    x, y = _pair(x, y)
    n, m = len(x), len(y)
    theta = torch.randn(x.shape[1], projections, generator=on_cpu(generator), dtype=torch.float64)
    theta /= theta.norm(dim=0)
    x, y = (x @ theta).sort(dim=0).values, (y @ theta).sort(dim=0).values
    ends = torch.cat([torch.arange(n + 1) * m, torch.arange(1, m) * n]).unique()
    widths, left = ends.diff().double() / (n * m), ends[:-1]
    gaps = (x[left // m] - y[left // n]).abs() ** p
    return float((widths @ gaps).mean() ** (1 / p))


def energy_kernel(z: Tensor) -> Tensor:
    r"""$k(a,b)=-\|a-b\|$ between all rows of z (N, D) -> (N, N): with it, MMD² is the energy distance.

    >>> import torch
    >>> from diffusion_core.metrics import energy_kernel
    >>> energy_kernel(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))[0, 1].item()
    -5.0
    """
    return -torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")


def gaussian_kernel(z: Tensor) -> Tensor:
    r"""$k(a,b)=\exp\!\big(-\|a-b\|^2/2h^2\big)$ between all rows of z (N, D) -> (N, N); h is the median distance of two rows.

    Raises ValueError where that median is zero, so that no width suggests itself.

    >>> import torch
    >>> from diffusion_core.metrics import gaussian_kernel
    >>> k = gaussian_kernel(torch.tensor([[0.0], [1.0], [2.0]]))
    >>> torch.allclose(k[0], torch.exp(torch.tensor([0.0, -0.5, -2.0])))
    True
    """
    distance = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")
    h = distance[*torch.triu_indices(len(z), len(z), 1)].median()
    if h == 0:
        raise ValueError("half of all pairs of points coincide, so their median distance, the width of the kernel, is zero; use energy_kernel")
    return torch.exp(-0.5 * (distance / h) ** 2)


def mmd2(x: Tensor, y: Tensor, kernel: Callable[[Tensor], Tensor] = gaussian_kernel) -> float:
    r"""The squared maximum mean discrepancy $\mathbb E\,k(x,x')+\mathbb E\,k(y,y')-2\,\mathbb E\,k(x,y)$, means over all pairs of the samples.

    As one quadratic form: $a^\top Ka$ with K the kernel of the pooled sample and $a_i=1/N$ on x, $-1/M$ on y. Never negative; its
    mean under "no difference" is positive and shrinks like 1/N (the pairs of a point with itself count). Raises as `sliced_wasserstein`.
    Memory: (N + M)² numbers. Source: Gretton et al. 2012, equation 5.

    >>> import math, torch
    >>> from diffusion_core.metrics import mmd2
    >>> x, y = torch.zeros(5, 1), torch.full((5, 1), 3.0)
    >>> math.isclose(mmd2(x, y), 2 - 2 * math.exp(-0.5))
    True
    """
    x, y = _pair(x, y, least=2)
    a = _weights(len(x), len(y))
    return float(a @ kernel(torch.cat([x, y])) @ a)


def energy_distance(x: Tensor, y: Tensor) -> float:
    r"""$2\,\mathbb E\|x-y\|-\mathbb E\|x-x'\|-\mathbb E\|y-y'\|$, means over all pairs of the samples; in the units of x.

    Zero for equal distributions and only for them. `scipy.stats.energy_distance` is its root, on a line. Raises as `sliced_wasserstein`.
    Source: Székely and Rizzo 2013.

    >>> import torch
    >>> from diffusion_core.metrics import energy_distance
    >>> round(energy_distance(torch.zeros(5, 1), torch.full((5, 1), 3.0)), 6)
    6.0
    """
    return mmd2(x, y, energy_kernel)


def permutation_test(
    x: Tensor,
    y: Tensor,
    kernel: Callable[[Tensor], Tensor] = energy_kernel,
    permutations: int = 500,
    generator: torch.Generator | None = None,
) -> float:
    r"""The p-value of "x and y come from one distribution", by `mmd2` with this kernel.

    If they do, shuffling the pooled sample changes nothing, so the observed value ranks uniformly among `permutations` shuffled ones:
    $p=(1+\#\{\text{shuffled}\ge\text{observed}\})/(1+\text{permutations})$, exact at every N. Small p: the samples differ.
    x and y must hold independent draws. Raises as `sliced_wasserstein`. Source: Gretton et al. 2012; Phipson and Smyth 2010.

    >>> import torch
    >>> from diffusion_core.metrics import permutation_test
    >>> generator = torch.Generator().manual_seed(0)
    >>> x, y = torch.randn(2, 40, 3, generator=generator)
    >>> permutation_test(x, y + 2.0, permutations=99, generator=generator)
    0.01
    """
    if not is_count(permutations):
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    x, y = _pair(x, y, least=2)
    gram, generator = kernel(torch.cat([x, y])), on_cpu(generator)
    a = _weights(len(x), len(y))
    shuffled = torch.stack([a] + [a[torch.randperm(len(a), generator=generator)] for _ in range(permutations)])
    values = ((shuffled @ gram) * shuffled).sum(dim=1)
    # Equal partitions of the pooled sample may differ by rounding; they count as ties.
    tie = 1e-12 * gram.abs().max()
    return (1 + int((values[1:] >= values[0] - tie).sum())) / (1 + permutations)


def _weights(n: int, m: int) -> Tensor:
    return torch.cat([torch.full((n,), 1 / n, dtype=torch.float64), torch.full((m,), -1 / m, dtype=torch.float64)])


def frechet_distance(mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor) -> float:
    r"""The squared 2-Wasserstein distance of two Gaussians, $\|\mu_x-\mu_y\|^2+\mathrm{tr}\big(\Sigma_x+\Sigma_y-2(\Sigma_x^{1/2}\Sigma_y\Sigma_x^{1/2})^{1/2}\big)$.

    Means (D,), covariances (D, D) symmetric and positive semidefinite. The roots come from eigenvalues, which stay real where a
    covariance is singular (dead features; N < D) and `scipy.linalg.sqrtm` of the product does not. Source: Dowson and Landau 1982.

    >>> import torch
    >>> from diffusion_core.metrics import frechet_distance
    >>> one = torch.eye(2)
    >>> mean, other_mean = torch.zeros(2), torch.tensor([3.0, 4.0])
    >>> round(frechet_distance(mean, one, other_mean, 4 * one), 6)
    27.0
    """
    mean_x, cov_x, mean_y, cov_y = (value.detach().cpu().double() for value in (mean_x, cov_x, mean_y, cov_y))
    for mean, cov in ((mean_x, cov_x), (mean_y, cov_y)):
        if mean.ndim != 1 or cov.shape != (len(mean), len(mean)) or mean.shape != mean_x.shape:
            raise ValueError(f"means must have one shape (D,) and covariances (D, D), got means {tuple(mean_x.shape)} and {tuple(mean_y.shape)}, covariances {tuple(cov_x.shape)} and {tuple(cov_y.shape)}")
        if not bool(cov.isfinite().all() & mean.isfinite().all()) or not torch.allclose(cov, cov.mT, rtol=1e-6, atol=1e-9):
            raise ValueError("means and covariances must be finite and covariances symmetric; use (C + C.mT) / 2")
    values, vectors = torch.linalg.eigh(cov_x)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_y @ root).clamp(min=0).sqrt().sum()
    shift = (mean_x - mean_y).square().sum()
    return float((shift + cov_x.trace() + cov_y.trace() - 2 * cross).clamp(min=0))


def frechet_feature_distance(x: Tensor, y: Tensor, classifier: Classifier) -> float:
    r"""`frechet_distance` of the Gaussians fitted to `classifier.features` of two image samples (N, C, H, W) in [-1, 1]; no unit.

    FID is this figure with Inception's features, of which digits know nothing: hence the other name. Biased upward by about 1/N, so state N,
    the reference and the floor. Raises as `sliced_wasserstein`. Source: Heusel et al. 2017.

    >>> import torch
    >>> from diffusion_core import images, pretrained
    >>> from diffusion_core.metrics import frechet_feature_distance
    >>> classifier, (x, _) = pretrained("digits_classifier"), images("digits", "test")
    >>> digits, real = x[:100], x[100:200]
    >>> noise = torch.randn(100, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    >>> near = frechet_feature_distance(digits, real, classifier)
    >>> far = frechet_feature_distance(noise, real, classifier)
    >>> near < 0.2 * far
    True
    """
    x, y = _pair(_evaluate(classifier.features, classifier, x), _evaluate(classifier.features, classifier, y), least=2)
    return frechet_distance(x.mean(dim=0), x.T.cov(), y.mean(dim=0), y.T.cov())


def class_accuracy(x: Tensor, labels: Tensor, classifier: nn.Module) -> float:
    """The fraction of images x (N, C, H, W) in which the classifier sees the class `labels` (N,) asks for.

    Judge it beside the classifier's accuracy on real test images. Raises ValueError where x and labels differ in number or are empty.

    >>> from diffusion_core import images, pretrained
    >>> from diffusion_core.metrics import class_accuracy
    >>> x, labels = images("digits", "test")
    >>> class_accuracy(x[:200], labels[:200], pretrained("digits_classifier")) > 0.97
    True
    """
    if labels.shape != (len(x),) or len(x) == 0:
        raise ValueError(f"every image needs one label, labels of shape (N,), got {len(x)} images and {len(labels)} labels of shape {tuple(labels.shape)}")
    return float((_evaluate(classifier, classifier, x).argmax(dim=1) == labels.cpu()).double().mean())


@torch.no_grad()
def _evaluate(layer: Callable[[Tensor], Tensor], classifier: nn.Module, x: Tensor) -> Tensor:
    """`layer` of a classifier in evaluation mode on all of x, 500 images at a time, on the classifier's device; the result on the CPU."""
    if classifier.training:
        raise ValueError("the classifier is in training mode, where a batch changes the answer; call classifier.eval() first")
    home = next(classifier.parameters())
    return torch.cat([layer(chunk.to(home.device, home.dtype)).cpu() for chunk in x.split(500)])


def floor(
    metric: Callable[[Tensor, Tensor], float],
    real: Tensor,
    n: int,
    m: int,
    labels: Tensor | None = None,
    repeats: int = 5,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """What `metric` reads on real data: mean and standard deviation over `repeats` random splits of `real` into n and m different items.

    n, m: the sizes of the samples in the figure it is to stand beside. labels (len(real),): with them each class is split in proportion,
    as it is when a model is asked for equally many of each class; chance differences in the class counts would raise the floor.

    Raises ValueError when `real` holds fewer than n + m items, or `labels` are not one an item.

    >>> import torch
    >>> from diffusion_core.metrics import energy_distance, floor
    >>> generator = torch.Generator().manual_seed(0)
    >>> real = torch.randn(200, 2, generator=generator)
    >>> low, spread = floor(energy_distance, real, 50, 50, generator=generator)
    >>> low > 0 and spread > 0
    True
    """
    n, m, repeats = require_count(n, "n"), require_count(m, "m"), require_count(repeats, "repeats", least=2)
    if n + m > len(real):
        raise ValueError(f"the floor needs n + m different real items, got n = {n}, m = {m} of {len(real)}")
    if labels is not None and labels.shape != (len(real),):
        raise ValueError(f"labels must be one an item, shape ({len(real)},), got {tuple(labels.shape)}")
    readings, generator = [], on_cpu(generator)
    for _ in range(repeats):
        order = torch.randperm(len(real), generator=generator)
        if labels is not None:
            order = order[_class_quantile(labels.cpu()[order]).argsort(stable=True)]
        readings.append(metric(real[order[:n]], real[order[n : n + m]]))
    values = torch.tensor(readings, dtype=torch.float64)
    return float(values.mean()), float(values.std())


def _class_quantile(labels: Tensor) -> Tensor:
    """For each item how far through the items of its own class it comes, in (0, 1): sorting by it deals all classes out evenly."""
    members = labels[:, None] == labels.unique()
    return ((members.cumsum(dim=0) - 0.5) / members.sum(dim=0))[members]
