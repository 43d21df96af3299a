"""A line that shows how a long loop or a download gets on, to whoever watches, and leaves nothing behind."""

import os
import shutil
import sys
import time
from types import TracebackType
from typing import Self

__all__ = ["Progress", "watched"]


def watched() -> str | None:
    """Who watches this process: "terminal", "notebook" (a live one) or None.

    A notebook is live when its front end can be asked for input; the programs that execute and test notebooks (nbclient, nbconvert,
    nbval, papermill) cannot be asked, and say so with every cell. The environment variable DIFFUSION_CORE_PROGRESS=0 means that
    nobody watches. Raises ValueError when the variable is neither 0 nor 1.

    >>> from diffusion_core.progress import watched
    >>> watched() in ("terminal", "notebook", None)
    True
    """
    wish = os.environ.get("DIFFUSION_CORE_PROGRESS", "1")
    if wish not in ("0", "1"):
        raise ValueError(f"DIFFUSION_CORE_PROGRESS={wish!r}: expected 0 (never show progress) or 1 (show it to whoever watches)")
    if wish == "0":
        return None
    if "IPython" in sys.modules:
        shell = sys.modules["IPython"].get_ipython()
        kernel = getattr(shell, "kernel", None)
        if kernel is not None:
            return "notebook" if getattr(kernel, "_allow_stdin", False) else None
    return "terminal" if sys.stderr is not None and sys.stderr.isatty() else None


class Line:
    """The place where progress is shown, redrawn at most five times a second and emptied at the end.

    In a terminal it is a line of stderr; in a live notebook a line in the cell's output; for nobody (`watched` is None, or show=False)
    nothing at all. show=True writes on stderr when nobody is seen to watch, such as into the log of a job: one line every half minute, which stays.
    """

    def __init__(self, show: bool | None = None):
        self.place = None if show is False else watched() or ("log" if show else None)
        self.pause = 30.0 if self.place == "log" else 0.2

    def __enter__(self) -> Self:
        self.start = self.drawn = time.perf_counter()
        if self.place == "notebook":
            from IPython.display import display

            self._output = display({"text/plain": ""}, raw=True, display_id=True)
        return self

    def due(self) -> float | None:
        """Seconds since the start when it is time to draw again, otherwise None."""
        now = time.perf_counter()
        if self.place is None or now - self.drawn <= self.pause:
            return None
        self.drawn = now
        return now - self.start

    @property
    def width(self) -> int:
        """How many characters fit."""
        return shutil.get_terminal_size().columns if self.place == "terminal" else 90

    def show(self, text: str) -> None:
        """Draw this text in place of what stands there."""
        if self.place == "terminal":
            erase_line = "\r\x1b[K"
            sys.stderr.write(erase_line + text)
            sys.stderr.flush()
        elif self.place == "notebook":
            self._output.update({"text/plain": text}, raw=True)
        elif self.place == "log" and text:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.show("")


class Progress:
    """Steps done, rate, loss and time left, on a `Line`.

        with Progress(steps) as progress:
            for step in range(steps):
                ...
                progress.advance(loss)

    done: steps that an earlier process has made; the rate counts those of this one. Raises ImportError, naming the extra to install, when tqdm is missing and somebody watches.

    >>> from diffusion_core.progress import Progress
    >>> with Progress(3, show=False) as progress:
    ...     for loss in (3.0, 2.0, 1.0):
    ...         progress.advance(loss)
    >>> progress.done, round(progress.loss, 3)
    (3, 2.0)
    """

    def __init__(self, steps: int, show: bool | None = None, done: int = 0):
        self.steps, self.done, self.before, self.loss = steps, done, done, float("nan")
        self.line = Line(show)
        if self.line.place is not None:
            try:
                from tqdm import tqdm
            except ImportError as error:
                raise ImportError('the progress line needs tqdm: pip install "diffusion-core[train]", or pass progress=False') from error
            self._format = tqdm.format_meter

    def __enter__(self) -> Self:
        self.line.__enter__()
        return self

    def advance(self, loss: float) -> None:
        """One step is done; the loss shown is a mean over about the last fifty."""
        self.done += 1
        seen = self.done - self.before
        self.loss = loss if seen == 1 else self.loss + max(1 / seen, 0.02) * (loss - self.loss)
        elapsed = self.line.due()
        if elapsed is not None:
            text = self._format(self.done, self.steps, elapsed, ncols=self.line.width, initial=self.before, postfix=f"loss {self.loss:.4g}")
            self.line.show(text)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.line.__exit__(kind, error, trace)


class Transfer:
    """Bytes of a file, rate and time left, on a `Line`; needs no other package.

        with Transfer("cifar-10-binary.tar.gz", 170052171) as progress:
            progress.at(offset)

    The rate counts what came since the first call, so that a download that goes on from its middle shows the rate of today.
    """

    def __init__(self, name: str, size: int, show: bool | None = None):
        self.name, self.size, self.line = name, size, Line(show)
        self.first: int | None = None

    def __enter__(self) -> Self:
        self.line.__enter__()
        return self

    def at(self, offset: int) -> None:
        """So many bytes of the file are there. Less than before means that the file starts over, and the rate with it."""
        if self.first is None or offset < self.first:
            self.first, self.line.start = offset, time.perf_counter()
        elapsed = self.line.due()
        if elapsed is not None:
            rate = (offset - self.first) / elapsed if elapsed > 0 else 0.0
            left = _clock((self.size - offset) / rate) if rate > 0 else "?"
            text = f"{self.name}: {offset / self.size:.0%} of {self.size / 1e6:.1f} MB, {rate / 1e6:.2f} MB/s, {left} left"
            self.line.show(text[: self.line.width - 1])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.line.__exit__(kind, error, trace)


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, as in 1:02:03 or 02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
