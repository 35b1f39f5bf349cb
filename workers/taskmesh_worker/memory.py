"""What the system says of memory: how much a runner has, and whether the kernel has just run out of it."""

from __future__ import annotations

from pathlib import Path

import psutil

NEARLY_NOTHING = 0.02  # of the machine's memory
NEARLY_ALL = 0.9  # of a runner's limit


def resident(pid: int | None) -> int:
    """Bytes of resident memory of a process; 0 if it is gone."""
    if pid is None:
        return 0
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


class OutOfMemory:
    """Tells whether the kernel has killed for want of memory since it was last asked."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._files = [root / "proc/vmstat", *_cgroup_files(root)]
        self._count = self._kills()

    def _kills(self) -> int:
        total = 0
        for path in self._files:
            try:
                lines = path.read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
        return total

    def probable(self, last_bytes: int, limit: int) -> bool:
        """Whether a runner that was killed by SIGKILL, not ours, was probably killed for want of memory.

        Parameters
        ----------
        last_bytes, limit
            What it had when it was last measured, and its limit; 0: unknown, none.
        """
        before, self._count = self._count, self._kills()
        if self._count > before or (limit and last_bytes > NEARLY_ALL * limit):
            return True
        memory = psutil.virtual_memory()
        return bool(memory.available < NEARLY_NOTHING * memory.total)


def _cgroup_files(root: Path) -> list[Path]:
    """Where this process's control group counts its kills, in either version of control groups."""
    found = [root / "sys/fs/cgroup/memory.events"]  # as a container sees it
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers and path != "/":
            found.append(root / "sys/fs/cgroup" / path.strip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            found.append(root / "sys/fs/cgroup/memory" / path.strip("/") / "memory.oom_control")
    return found
