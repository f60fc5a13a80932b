"""torch's NNPACK switched off while programs run: its transforms round sums that are exact otherwise.

The switch is the process's, not a thread's. So the first program that runs turns it off, and the last one that is done
turns it back to what it was, whatever threads they run in.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class _Switch:
    def __init__(self) -> None:
        self._lock, self._running, self._before = threading.Lock(), 0, False

    def off(self) -> None:
        with self._lock:
            if not self._running:
                (self._before,) = torch.backends.nnpack.set_flags(False)
            self._running += 1

    def back(self) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                torch.backends.nnpack.set_flags(self._before)

    def forked(self) -> None:
        """In a child: no other thread of the parent is here, so none of its programs will be done."""
        if self._running:
            torch.backends.nnpack.set_flags(self._before)
        self._lock, self._running = threading.Lock(), 0


_SWITCH = _Switch()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_SWITCH.forked)


@contextmanager
def without_nnpack() -> Iterator[None]:
    """No step within uses NNPACK."""
    _SWITCH.off()
    try:
        yield
    finally:
        _SWITCH.back()
