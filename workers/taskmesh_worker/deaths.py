"""Deaths: how a runner ended, in words for the log and in a report for the task that it ran."""

from __future__ import annotations

import logging
import signal

import msgpack

from .forking import RunnerPipe
from .memory import OutOfMemory

log = logging.getLogger("taskmesh.worker")


class Deaths:
    """Says how the runners of a daemon ended.

    Parameters
    ----------
    host, worker
        What the machine and the daemon are called.
    memory_limit
        Bytes that each runner may take; 0: any.
    kernel
        Tells whether the system has just killed for want of memory.
    """

    def __init__(self, host: str, worker: str, memory_limit: int, kernel: OutOfMemory | None = None) -> None:
        self._host = host
        self._worker = worker
        self._memory_limit = memory_limit
        self._kernel = kernel or OutOfMemory()

    def report(self, runner: RunnerPipe, code: int, blame: bool) -> bytes:
        """Log a runner's end, and pack what is to be known of it: see `Form.LOST` in the protocol.

        Parameters
        ----------
        runner
            Its pipe, with its cells still mapped.
        code
            Its exit code, or the negative number of the signal that killed it.
        blame
            Whether what it was running may be why.
        """
        name = _signal_name(-code) if code < 0 else None
        died = f"was killed by {name}" if name else f"exited with code {code}"
        unasked = code == -signal.SIGKILL and blame and not runner.killed
        oom = unasked and self._kernel.probable(runner.bytes, self._memory_limit)
        hint = ", probably out of memory" if oom else ""
        level = logging.INFO if code == 0 or runner.killed else logging.WARNING
        log.log(level, "runner %d (pid %s) %s%s", runner.number, runner.pid, died, hint)
        packed: bytes = msgpack.packb({
            "kind": "lost", "host": self._host, "worker": self._worker, "pid": runner.pid or 0,
            "exitcode": code if code >= 0 else None, "signal": name, "oom": oom,
            "output": runner.cells.printed().decode("utf-8", "replace"),
        })  # fmt: skip
        return packed


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
