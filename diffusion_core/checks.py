"""Executable proofs: compare a result of the book with an independent answer.

`check` and `check_below` print one line that is the same on every machine (the label and the tolerance, never the measured value)
and raise `AssertionError` with the measured values when the claim fails. They are what the notebooks run under each labeled result.
"""

from typing import Any

import numpy as np

__all__ = ["check", "check_below"]


def _array(value: Any, label: str, name: str) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    array = np.asarray(value, dtype=np.float64)
    if array.size == 0:
        raise ValueError(f"check {label!r}: `{name}` is empty, so the check could not fail; pass at least one number")
    return array


def check(label: str, got: Any, want: Any, atol: float = 0.0, rtol: float = 0.0, stderr: Any = None) -> None:
    r"""Assert $|got - want| \le atol + rtol\,|want|$ elementwise, or $|got - want| \le 5\,stderr$ for a Monte Carlo estimate.

    got, want: numbers, arrays or tensors that broadcast against each other, without changing the shape of the larger.
    stderr: standard error(s) of `got`, of a fixed seed; then `atol` and `rtol` stay 0.

    Prints one stable line. Raises AssertionError with the largest deviation when the claim is false, a NaN or an infinity counting as false, and
    ValueError when no tolerance, or both kinds, are given.

    >>> import math
    >>> from diffusion_core import check
    >>> check("eq-pi", 3.14159, math.pi, atol=1e-5)
    ✓ eq-pi: |got - want| <= 1e-05
    """
    x, y = _array(got, label, "got"), _array(want, label, "want")
    try:
        fits = np.broadcast_shapes(x.shape, y.shape) in (x.shape, y.shape)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"check {label!r}: `got` has the shape {x.shape} and `want` {y.shape}, and neither can be repeated to the other; reshape one of them")
    if stderr is None:
        if not (atol >= 0 and rtol >= 0 and 0 < atol + rtol < np.inf):
            raise ValueError(f"check {label!r}: give a positive, finite atol or rtol, or the stderr of a Monte Carlo estimate")
        bound = atol + rtol * np.abs(np.where(np.isfinite(y), y, 0.0))
        parts = [f"{atol:g}"] * (atol > 0) + [f"{rtol:g} |want|"] * (rtol > 0)
        claim = f"|got - want| <= {' + '.join(parts)}"
    else:
        if atol or rtol:
            raise ValueError(f"check {label!r}: give either stderr or atol/rtol, not both")
        bound = 5 * _array(stderr, label, "stderr")
        if not (np.isfinite(bound).all() and (bound > 0).all()):
            raise ValueError(f"check {label!r}: stderr must be positive and finite, got {stderr}")
        claim = "|got - want| <= 5 standard errors"
    finite = np.isfinite(x) & np.isfinite(y)
    excess = np.abs(np.subtract(x, y, where=finite, out=np.full(finite.shape, np.inf))) - bound
    if not (excess <= 0).all():
        worst = np.unravel_index(np.argmax(excess), excess.shape)
        x, y, bound = (np.broadcast_to(a, excess.shape)[worst] for a in (x, y, bound))
        raise AssertionError(f"{label}: got {x!r}, want {y!r}, deviation {abs(x - y):.3e} where {bound:.3e} is allowed (index {tuple(map(int, worst))})")
    print(f"✓ {label}: {claim}")


def check_below(label: str, got: Any, bound: Any) -> None:
    """Assert got <= bound elementwise and print one stable line; a NaN or an infinity counts as false. Raises ValueError for an infinite bound.

    >>> from diffusion_core import check_below
    >>> check_below("thm-small", 0.2, 0.5)
    ✓ thm-small: at most 0.5
    """
    x, y = _array(got, label, "got"), _array(bound, label, "bound")
    if np.isposinf(y).any():
        raise ValueError(f"check {label!r}: a bound of infinity cannot fail; give a finite one")
    if not (np.isfinite(x) & (x <= y)).all():
        raise AssertionError(f"{label}: {x!r} is not below {y!r}")
    shown = f" {float(y):g}" if y.ndim == 0 and isinstance(bound, (int, float)) else " its bound"
    print(f"✓ {label}: at most{shown}")
