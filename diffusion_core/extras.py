"""What comes with an extra is imported where it is used, and named where it is missing."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needing(what: str, extra: str) -> Iterator[None]:
    """Around imports of packages that only `what` needs: raises ModuleNotFoundError with the missing one's name and the extra that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "a package").partition(".")[0]
        raise ModuleNotFoundError(f'{what} needs {package}: pip install "diffusion-core[{extra}]"', name=error.name) from error
