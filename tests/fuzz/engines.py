"""Engines: what makes inputs. `blind` mutates what it has; `atheris` is led by which lines of ours an input reaches.

Both hand every input to the oracle and go on after a finding. They say how far they are in a file, because libFuzzer,
which is what atheris is, ends its process without a word.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .oracle import Finding, judge

TOLD_EVERY_S = 1.0
POOL = 300
INTERESTING = (0, 1, 2, 4, 127, 128, 0x90, 0x91, 0xC0, 0xC4, 0xDC, 0xDD, 0xDF, 0xFE, 0xFF)


@dataclass
class Progress:
    """How far an engine is: inputs, seconds, and findings as where and hexadecimal input."""

    target: str
    engine: str
    inputs: int = 0
    seconds: float = 0.0
    findings: dict[str, tuple[str, str]] = field(default_factory=dict)


class Reporter:
    """Counts, and tells."""

    def __init__(self, progress: Progress, path: Path) -> None:
        self.progress = progress
        self._path = path
        self._began = time.monotonic()
        self._told_at = 0.0

    def count(self, finding: Finding | None) -> None:
        """One more input."""
        progress = self.progress
        progress.inputs += 1
        new = finding is not None and (
            finding.where not in progress.findings or len(finding.data) * 2 < len(progress.findings[finding.where][1])
        )
        if finding is not None and new:
            progress.findings[finding.where] = (finding.text[-6000:], finding.data.hex())
        now = time.monotonic()
        if new or now - self._told_at >= TOLD_EVERY_S:
            self._told_at, progress.seconds = now, now - self._began
            fresh = self._path.with_suffix(".new")
            fresh.write_text(json.dumps(asdict(progress)))
            os.replace(fresh, self._path)


def available() -> bool:
    """Whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


def blind(target: str, seconds: float, seed: int, reporter: Reporter, most: int = sys.maxsize) -> None:
    """Random inputs, and random changes of those that there are; a given seed makes the same ones again."""
    from .corpus import files
    from .targets import TARGETS, beginnings, longest

    run, chances, limit = TARGETS[target], random.Random(f"{target} {seed}"), longest(target)
    pool = [*beginnings(target), *(path.read_bytes() for path in files(target))]
    until = time.monotonic() + seconds
    while reporter.progress.inputs < most and time.monotonic() < until:
        if pool and chances.random() < 0.5:
            data = mutated(chances.choice(pool), chances.choice(pool), chances)[:limit]
        else:
            data = chances.randbytes(int(limit * chances.random() ** 2))
        if chances.random() < 0.01:
            pool = [*pool[-POOL:], data]
        reporter.count(judge(target, run, data))


def mutated(data: bytes, other: bytes, chances: random.Random) -> bytes:
    """Some bytes of `data` changed, left out, doubled, or taken from `other`."""
    made = bytearray(data)
    for _ in range(1 + chances.randrange(4)):
        at = chances.randrange(len(made) + 1)
        what, length = chances.randrange(6), 1 + chances.randrange(8)
        if what == 0 and at < len(made):
            made[at] ^= 1 << chances.randrange(8)
        elif what == 1 and at < len(made):
            made[at] = chances.choice(INTERESTING)
        elif what == 2:
            del made[at : at + length]
        elif what == 3:
            made[at:at] = made[at : at + length]
        elif what == 4:
            start = chances.randrange(len(other) + 1)
            made[at:at] = other[start : start + length * 4]
        else:
            made[at:at] = chances.randbytes(length)
    return bytes(made)


def atheris(target: str, seconds: float, seed: int, reporter: Reporter, folder: Path) -> None:
    """Led by coverage. Does not return: libFuzzer ends the process."""
    engine: Any = importlib.import_module("atheris")
    with engine.instrument_imports(include=["taskmesh", "taskmesh_worker"]):
        from .corpus import files
        from .targets import TARGETS, beginnings, longest

    inputs = folder / "inputs" / target
    inputs.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate([*beginnings(target), *(path.read_bytes() for path in files(target))]):
        (inputs / f"begin-{number}").write_bytes(data)
    run = TARGETS[target]

    def one(data: bytes) -> None:
        reporter.count(judge(target, run, data))

    engine.Setup(
        [
            "fuzz", str(inputs), f"-max_total_time={max(1, round(seconds))}", f"-max_len={longest(target)}",
            f"-seed={seed + 1}", f"-artifact_prefix={folder}/", "-rss_limit_mb=4096", "-timeout=120", "-verbosity=0",
            "-len_control=20",
        ],
        one,
    )  # fmt: skip
    engine.Fuzz()


def child(arguments: list[str]) -> None:
    """One engine on one target, in a process of its own."""
    target, name, seconds, seed, folder = arguments
    logging.disable(logging.CRITICAL)  # whatever is dropped is logged, and everything is
    path = Path(folder) / f"{target}-{name}.json"
    reporter = Reporter(Progress(target, name), path)
    if name == "atheris":
        atheris(target, float(seconds), int(seed), reporter, Path(folder))
    else:
        blind(target, float(seconds), int(seed), reporter)
