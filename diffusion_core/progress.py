"""A line that shows how a long loop gets on, to whoever watches, and leaves nothing behind."""

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


class Progress:
    """Steps done, rate, loss and time left, redrawn at most five times a second.

        with Progress(steps) as progress:
            for step in range(steps):
                ...
                progress.advance(loss)

    In a terminal it is a line of stderr that disappears at the end; in a live notebook a line in the cell's output that is emptied at
    the end; for nobody (`watched` is None, or show=False) nothing at all. show=True draws on stderr when nobody is seen to watch.
    Raises ImportError, naming the extra to install, when tqdm is missing and somebody watches.
    """

    def __init__(self, steps: int, show: bool | None = None):
        self.steps, self.done, self.loss = steps, 0, float("nan")
        self.place = None if show is False else watched() or ("terminal" if show else None)
        if self.place is not None:
            try:
                from tqdm import tqdm
            except ImportError as error:
                raise ImportError('the progress line needs tqdm: pip install "diffusion-core[train]", or pass progress=False') from error
            self._format = tqdm.format_meter

    def __enter__(self) -> Self:
        self.start = self.drawn = time.perf_counter()
        if self.place == "notebook":
            from IPython.display import display

            self._line = display({"text/plain": ""}, raw=True, display_id=True)
        return self

    def advance(self, loss: float) -> None:
        """One step is done; the loss shown is a mean over about the last fifty."""
        self.done += 1
        self.loss = loss if self.done == 1 else self.loss + max(1 / self.done, 0.02) * (loss - self.loss)
        now = time.perf_counter()
        if self.place is not None and now - self.drawn > 0.2:
            self.drawn = now
            width = shutil.get_terminal_size().columns if self.place == "terminal" else 90
            self._show(self._format(self.done, self.steps, now - self.start, ncols=width, postfix=f"loss {self.loss:.4g}"))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.place is not None:
            self._show("")

    def _show(self, text: str) -> None:
        if self.place == "terminal":
            erase_line = "\r\x1b[K"
            sys.stderr.write(erase_line + text)
            sys.stderr.flush()
        else:
            self._line.update({"text/plain": text}, raw=True)
