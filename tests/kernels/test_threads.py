"""The threads that calls share: any number, several callers at once, forked processes, and none left at work."""

import multiprocessing
import os
import platform
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from fewbits.kernels import library, structs
from fewbits.kernels.calls import Calls
from fewbits.kernels.conv import Layer
from fewbits.kernels.rescaling import Rescaling
from fewbits.testing.kernel_calls import codes, conv_case, signed

NATIVE = library.levels()[1:]
pytestmark = pytest.mark.skipif(not NATIVE, reason="no native library: python -m fewbits.kernels.build")


class Same:
    """A convolution again and again, its output checked."""

    def __init__(self, layer: Layer, x: np.ndarray, threads: int, times: int):
        case = conv_case(layer, x)
        self.wanted, self.y = case.wanted, np.zeros(case.wanted.shape, case.wanted.dtype)
        call, keep = case.make(self.y)
        self.calls = Calls([call] * times, [case, keep], threads)

    def run(self) -> None:
        self.y[...] = 0
        self.calls.run()
        np.testing.assert_array_equal(self.y, self.wanted)


def square(rng: np.random.Generator, size: int = 3, channels: int = 64) -> Layer:
    margin = size // 2
    return Layer(signed(rng, channels, size, size, channels), None, Rescaling(structs.SUMS, structs.S32), 3,
                 margins=(margin, margin, margin, margin))


@pytest.mark.parametrize("level", NATIVE)
@pytest.mark.parametrize("threads", [-2**31, -1, 0, 33, 2**31 - 1])
def test_any_number_of_threads_is_taken(threads: int, level: library.Level) -> None:
    """Less than one is one, and more than the most are the most: by rows, by columns and in Winograd's form."""
    rng = np.random.default_rng(5)
    with library.use(level):
        for layer, x in ((square(rng), codes(rng, 2, 16, 16, 64)), (square(rng, 1, 512), codes(rng, 1, 1, 3, 512)),
                         (square(rng, 5, 16), codes(rng, 3, 9, 9, 16))):
            Same(layer, x, threads, 2).run()


def test_callers_at_once_with_other_threads_each() -> None:
    rng = np.random.default_rng(6)
    some = [Same(square(rng), codes(rng, 1 + number % 3, 14, 14, 64), 1 + number, 5) for number in range(8)]
    failed = []

    def run(first: int) -> None:
        try:
            for turn in range(60):
                locks[number := (first + turn) % 8].acquire()
                try:
                    some[number].run()
                finally:
                    locks[number].release()
        except BaseException as error:  # in a thread nobody would see it
            failed.append(error)

    locks = [threading.Lock() for _ in some]
    callers = [threading.Thread(target=run, args=(first,)) for first in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failed


def in_a_fork(does: Callable[[], None]) -> int:
    """The exit code of a forked process that does this: 0, or 1 where it raises."""
    child = os.fork()
    if child == 0:
        try:
            does()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    rng = np.random.default_rng(7)
    same = Same(square(rng), codes(rng, 1, 28, 28, 64), 3, 5)
    same.run()
    assert in_a_fork(same.run) == 0
    same.run()


def without_room() -> None:
    """Runs on 32 threads in a process that has no memory for so many stacks."""
    import resource

    rng = np.random.default_rng(9)
    same = Same(square(rng), codes(rng, 1, 28, 28, 64), 32, 20)
    most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 2**21
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for _ in range(5):
        same.run()
    assert len(list(Path("/proc/self/task").iterdir())) < 32


@pytest.mark.skipif(platform.system() != "Linux", reason="how much memory there is is read from Linux's /proc")
def test_where_threads_cannot_be_had_the_others_do_all() -> None:
    process = multiprocessing.get_context("spawn").Process(target=without_room)
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.mark.skipif(platform.system() != "Linux", reason="the states of threads are read from Linux's /proc")
def test_threads_that_a_batch_has_no_part_for_sleep() -> None:
    """After one that had eight, one that has two leaves six alone; between batches all sleep."""
    rng = np.random.default_rng(8)
    two, eight = (Same(square(rng), codes(rng, 1, 28, 28, 64), threads, 50) for threads in (2, 8))
    eight.run()
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            two.calls.run()

    def at_work() -> int:
        """Threads that run or could, but this one."""
        states = []
        for task in Path("/proc/self/task").iterdir():
            if task.name != str(threading.get_native_id()):
                states.append((task / "stat").read_text().rpartition(")")[2].split()[0])
        return states.count("R")

    def usually() -> float:
        time.sleep(0.1)
        found = []
        for _ in range(41):
            found.append(at_work())
            time.sleep(0.002)
        return median(found)

    caller = threading.Thread(target=run)
    caller.start()
    try:
        assert usually() <= 2
    finally:
        ended.set()
        caller.join()
    assert usually() == 0
