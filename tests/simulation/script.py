"""A schedule of work and faults, made from a seed before anything runs: so a part of it can be left out.

Each seed enables only some kinds of trouble (swarm testing, Groce et al., 2012): a schedule in which everything goes
wrong all the time never gets far enough to meet the interesting states.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

WORK = {"call": 8.0, "map": 5.0, "define": 1.0, "cancel": 2.0, "interrupt": 1.0, "interrupted": 0.5, "retire": 0.5}
COMINGS = {"client_comes": 0.3, "daemon_comes": 0.3, "close": 0.3, "drain_daemon": 0.5}
GENTLE = {"stall": 1.0, "reset": 1.0, "join_again": 0.7, "slow_disk": 0.5, "disk_full": 0.3}
"""Faults under which no task may run twice, as long as stalls are short."""
HARSH = {
    "kill_runner": 2.0, "freeze_runner": 1.0, "kill_daemon": 1.0, "freeze_daemon": 1.0, "kill_hub": 1.0,
    "restart_hub": 0.5, "freeze_hub": 1.0, "kill_client": 0.3, "freeze_client": 0.5, "cut": 1.0,
    "half_open": 0.5, "long_stall": 0.7, "jump": 0.3, "drain_hard": 0.5, "revoke_client": 0.3, "revoke_daemon": 0.5,
}  # fmt: skip


class Item(NamedTuple):
    """What happens at a time; `numbers` say to whom, and how much."""

    at: float
    kind: str
    numbers: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a world is like. Times in seconds; `most` is how many tasks are submitted together."""

    durable: bool
    daemons: int
    slots: int
    clients: int
    latency_s: float
    mess: float
    task_s: float
    long_s: float
    grace_s: float
    commit_s: float
    drift: float
    horizon_s: float
    kinds: str
    timeout_s: float
    memory: bool
    max_tasks: int
    most: int


@dataclass(frozen=True, slots=True)
class Script:
    """A seed's world and everything that happens in it."""

    seed: int
    settings: Settings
    items: list[Item]

    @property
    def calm(self) -> bool:
        """Whether no task may run twice. Resets alone are calm; who is stalled as well cannot register in time."""
        happens = {item.kind for item in self.items}
        if "reset" in happens and "stall" in happens:
            return False
        return not set("ksm") & set(self.settings.kinds) and not any(item.kind in HARSH for item in self.items)

    def without(self, drop: set[int]) -> Script:
        """The same without the items at these places."""
        return Script(self.seed, self.settings, [item for n, item in enumerate(self.items) if n not in drop])


def script(seed: int) -> Script:
    """The schedule of a seed."""
    random = Random(seed)
    pick = random.choice
    harsh = random.random() < 0.75
    kinds = "oooooooooooo" + ("e" if random.random() < 0.5 else "") + ("l" if random.random() < 0.4 else "")
    if harsh:
        kinds += ("k" if random.random() < 0.3 else "") + ("s" if random.random() < 0.2 else "")
        kinds += "m" if random.random() < 0.2 else ""
    settings = Settings(
        durable=random.random() < 0.6,
        daemons=pick([1, 1, 2, 2, 3]),
        slots=pick([1, 2, 3]),
        clients=pick([1, 1, 2]),
        latency_s=pick([1e-4, 1e-3, 1e-3, 1e-2]),
        mess=pick([0.0, 0.0, 0.02, 0.2]),
        task_s=pick([1e-6, 1e-5, 1e-3, 1e-2, 0.05]),
        long_s=pick([0.2, 1.0, 4.0]),
        grace_s=pick([2.0, 5.0, 10.0]),
        commit_s=pick([1e-3, 1e-2, 0.2]),
        drift=pick([0.0, 0.0, 1e-4, 1e-2]),
        horizon_s=pick([0.1, 0.3, 1.0, 3.0, 10.0]),
        kinds=kinds,
        timeout_s=pick([0.0, 0.0, 0.3, 0.7]),
        memory=pick([False, False, True]),
        max_tasks=pick([0, 0, 0, 4]),
        most=pick([3, 8, 8, 40]),
    )
    weights = dict(WORK)
    trouble = COMINGS | GENTLE | (HARSH if harsh else {})
    enabled = {kind: weight * pick([0.5, 1, 3]) for kind, weight in trouble.items() if random.random() < 0.3}
    work = _items(random, weights, pick([2, 4, 8]), settings, [])
    faults = _items(random, enabled, pick([1, 2, 4, 8]), settings, [item.at for item in work])
    return Script(seed, settings, sorted([*work, *faults]))


def _items(random: Random, weights: dict[str, float], count: int, settings: Settings, near: list[float]) -> list[Item]:
    """Some of these, at any time; half of the faults shortly after something was asked for."""
    if not weights:
        return []
    items = []
    for kind in random.choices(list(weights), list(weights.values()), k=count):
        at = random.random() * settings.horizon_s
        if near and random.random() < 0.5:
            at = random.choice(near) + random.choice([0.5, 1.5, 2.5, 4.0, 8.0]) * settings.latency_s
        big = (
            random.randrange(1 << 20),
            random.randrange(1 << 20),
            random.randrange(1 << 20),
            random.randrange(1 << 20),
        )
        items.append(Item(min(at, settings.horizon_s), kind, big))
    return items
