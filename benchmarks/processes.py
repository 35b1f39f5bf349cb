"""Processes below this one: finding all of them, what memory they hold, and ending them.

Peers start daemons that leave their parent, their session and their process group. On Linux this process
becomes the one that inherits orphans, so that everything a measurement started stays below it and is found
on every path.
"""

import ctypes
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
GONE_WITHIN_S = 10.0


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends. On Linux; elsewhere nothing happens.

    Raises
    ------
    OSError
        The kernel refused.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def descendants() -> list[psutil.Process]:
    """Everything below this process that still runs; what has ended is reaped."""
    found = psutil.Process().children(recursive=True)
    ended = [process for process in found if is_zombie(process)]
    psutil.wait_procs(ended, timeout=0)
    return [process for process in found if process not in ended]


def is_zombie(process: psutil.Process) -> bool:
    """Whether it has ended. One that vanished while we asked has, too."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def end_descendants(grace_s: float) -> int:
    """Give everything below this process some time to end, kill the rest, and say how many that were.

    Killing is repeated, since what is being killed may be starting something.

    Raises
    ------
    TimeoutError
        Something survived SIGKILL for GONE_WITHIN_S.
    """
    _, overdue = psutil.wait_procs(descendants(), timeout=grace_s)
    deadline = time.monotonic() + GONE_WITHIN_S
    while rest := descendants():
        if time.monotonic() > deadline:
            raise TimeoutError(f"these processes cannot be killed: {[process.pid for process in rest]}")
        for process in rest:
            kill(process)
        psutil.wait_procs(rest, timeout=1.0)
    return len(overdue)


def kill(process: psutil.Process) -> None:
    """SIGKILL, unless it is gone already. psutil checks that the pid still means the same process."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def pss_mib(family: Iterable[psutil.Process]) -> float:
    """Sum of the proportional set sizes: a page that n processes share counts 1/n in each, so once in all.

    Read from smaps_rollup (Linux 4.14); elsewhere, the memory that belongs to one process alone (USS)
    stands in.
    """
    total = 0.0
    for process in family:
        try:
            total += process_pss_mib(process)
        except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
            continue  # it ended while we were reading
    return total


def process_pss_mib(process: psutil.Process) -> float:
    """One process's share, in MiB."""
    if sys.platform != "linux":
        return float(process.memory_full_info().uss) / 2**20
    return proc_kib(Path(f"/proc/{process.pid}/smaps_rollup"), "Pss:") / 1024


def peak_rss_mib(pid: int | str) -> float | None:
    """The most memory that a process has held at once so far, or None where the system does not say."""
    if sys.platform != "linux":
        return None
    return proc_kib(Path(f"/proc/{pid}/status"), "VmHWM:") / 1024


def proc_kib(path: Path, label: str) -> int:
    """The number behind a label, in kB as /proc counts; 0 without such a line, as in a process that ended."""
    for line in path.read_text().splitlines():
        if line.startswith(label):
            return int(line.split()[1])
    return 0
