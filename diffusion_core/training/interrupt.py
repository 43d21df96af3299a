"""Ctrl-C, or a notebook's stop button, between two steps instead of inside one."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class Deferred:
    """Holds a first interrupt back and notes it in `pressed`, for the loop to act on where its state is whole; a second one goes through at once.

    One that nobody acted on is raised at the end: none is lost.
    Does nothing outside the main thread, where Python delivers no signal, and where somebody else handles the signal already.
    """

    def __init__(self, active: bool = True):
        self.pressed = False
        self._active = active and threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def __enter__(self) -> Self:
        if self._active:
            signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._active:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.pressed and kind is None:
            raise KeyboardInterrupt
