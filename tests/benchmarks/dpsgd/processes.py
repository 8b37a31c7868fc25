"""Fresh processes: forked from a server that has the libraries loaded and has computed nothing yet."""

import ctypes
import multiprocessing as mp
import warnings
from multiprocessing.context import ForkServerContext
from pathlib import Path

import torch

from tests.benchmarks.dpsgd.settings import Settings

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def context() -> ForkServerContext:
    """Where each workload, and each measurement of memory, gets a process of its own."""
    made = mp.get_context("forkserver")
    made.set_forkserver_preload(["tests.benchmarks.dpsgd.rounds", "tests.benchmarks.dpsgd.memory"])
    return made


def begin(settings: Settings, *, keep_memory: bool) -> None:
    """What every process does first, alike for all engines.

    Args:
        settings: of the run.
        keep_memory: whether glibc keeps memory that is freed (mallopt(3): no mmap, no trimming) instead of giving it back
            to the kernel and faulting it in again, page by page, at the next step. That would cost every engine a tenth
            of its time or more, at random.
    """
    warnings.filterwarnings("ignore")
    torch.set_num_threads(settings.threads)
    if keep_memory:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


def resident(field: str) -> int:
    """Resident memory in bytes: `VmRSS` now, `VmHWM` at most since the process began or `reset_peak`. Linux only."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def reset_peak() -> None:
    """Let `VmHWM` begin anew (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")
