"""The corpus: inputs that once found something, and are tried again for ever. A folder for each target, a file each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from .oracle import Finding, judge
from .source import Bytes
from .targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


def files(target: str, folder: Path = CORPUS) -> Iterator[Path]:
    """What there is for a target."""
    yield from sorted((folder / target).glob("*"))


def save(finding: Finding, folder: Path = CORPUS) -> Path:
    """Keep the input of a finding; its name says nothing but which one it is."""
    path = folder / finding.target / hashlib.blake2b(finding.data, digest_size=8).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(finding.data)
    return path


def replay(path: Path) -> Finding | None:
    """Try a file again: the folder that it is in says with which target."""
    return judge(path.parent.name, TARGETS[path.parent.name], path.read_bytes())


def shrink(finding: Finding, tries: int = 400) -> Finding:
    """A shorter input that finds the same, by leaving out parts."""
    run, best = TARGETS[finding.target], finding
    size = len(best.data) // 2
    while size and tries > 0:
        start = 0
        while start < len(best.data) and tries > 0:
            tries -= 1
            found = judge(finding.target, run, best.data[:start] + best.data[start + size :])
            if found is not None and found.where == finding.where:
                best = found
            else:
                start += size
        size //= 2
    return best


__all__ = ["CORPUS", "Bytes", "files", "replay", "save", "shrink"]
