"""Every target by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import client_side, decoders, hub_side, mesh_side, worker_side
from .source import Source

TARGETS: dict[str, Callable[[Source], None]] = {
    "message": decoders.message,
    "grammar": decoders.grammar,
    "control": decoders.control,
    "stream": decoders.stream,
    "pipe": decoders.runner_pipe,
    "each": decoders.each,
    "store": decoders.store,
    "text": decoders.text,
    "ticket": decoders.ticket,
    "link": client_side.link,
    "scheduler": hub_side.scheduler,
    "plan": worker_side.plan,
    "runner": worker_side.runner,
    "client": client_side.client,
    "mesh": mesh_side.mesh,
}

LONGEST = {"message": 4096, "store": 200, "text": 200, "link": 600, "ticket": 600}
"""Bytes of an input, for those that do not get on better with more; else 3,000."""


def longest(target: str) -> int:
    """How many bytes an input of a target may have."""
    return LONGEST.get(target, 3000)


def beginnings(target: str) -> Iterator[bytes]:
    """What to begin with: sensible inputs, for targets that take bytes as they come."""
    yield from decoders.examples().get(target, ())
