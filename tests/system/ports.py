"""Ports for hubs that need a block of them."""

from __future__ import annotations

import random
import socket

NEAR, FAR = "127.0.0.2", "127.0.0.1"
"""Where a proxy listens, and where the hub behind it does."""


def free_ports(count: int, seed: int | None = None) -> range:
    """Consecutive ports that are free on both addresses, below those that the system gives out by itself."""
    generator = random.Random(seed)
    for _ in range(200):
        first = generator.randrange(10_000, 30_000 - count)
        ports = range(first, first + count)
        if all(_free(host, port) for port in ports for host in (NEAR, FAR)):
            return ports
    raise RuntimeError(f"no {count} consecutive free ports found")


def _free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
