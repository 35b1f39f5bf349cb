"""The facts without which a number means nothing: what was measured, on what, when."""

import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

from benchmarks.peers.registry import PeerInfo


def facts(peers: Iterable[PeerInfo]) -> dict[str, object]:
    """Cores, memory, kernel, Python, versions, date. Nothing that names the machine or its user."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": cpu_model(),
        "memory_mib": psutil.virtual_memory().total // 2**20,
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_average_before": list(os.getloadavg()),
        "versions": versions(peers),
    }


def versions(peers: Iterable[PeerInfo]) -> dict[str, str]:
    """Versions of the packages that the peers are made of; a package that is only on the path has none."""
    found: dict[str, str] = {}
    for package in sorted({package for peer in peers for package in peer.packages}):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def cpu_model() -> str:
    """The model's name, where the system says it."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def line(machine: dict[str, object]) -> str:
    """The facts that a reader of the tables needs, in one line."""
    return (
        f"{machine['cores_usable']} of {machine['cores']} cores, {machine['cpu']}, {machine['system']}, "
        f"{machine['python']}, {machine['date']}"
    )
