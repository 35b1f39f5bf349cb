"""Random but legal batches of records; and, as a program, a process that writes them to a store until it is killed.

`python -m tests.store.churn FILE SEED SKIP` says how many batches are committed, those that it skipped among them.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

from taskmesh.core.ranges import subtract
from taskmesh.core.records import (
    DropBody,
    DropOutcome,
    DropSession,
    DropSpec,
    PutBody,
    PutChunk,
    PutLeft,
    PutOutcome,
    PutSession,
    PutSpec,
    Record,
)
from taskmesh.store.sqlite import SqliteStore

from .model import Model, chunk, outcome, spec

MARK = b"number of the batch!"  # the body under this digest says which batch was the last


class Churn:
    """Picks the next record among those that a hub could write now."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.model = Model()
        self._steps = [
            self._session, self._spec, self._body,
            *[self._chunk] * 6, *[self._progress] * 9, *[self._delivered] * 6, self._drop,
        ]  # fmt: skip

    def batch(self) -> list[Record]:
        """Some records."""
        made: list[Record] = []
        for _ in range(self.random.randint(1, 6)):
            records = self.random.choice(self._steps)()
            for record in records:
                self.model.apply(record)
            made += records
        return made

    def _session(self) -> list[Record]:
        return [PutSession(self.random.getrandbits(64), "script", "host")] if len(self.model.sessions) < 4 else []

    def _spec(self) -> list[Record]:
        if not self.model.sessions:
            return []
        session = self.random.choice(list(self.model.sessions))
        number = self.random.randrange(5)
        return [] if (session, number) in self.model.specs else [PutSpec(session, spec(number))]

    def _body(self) -> list[Record]:
        digest = bytes([self.random.randrange(4)]) * 16
        return [DropBody(digest)] if digest in self.model.bodies else [PutBody(digest, self.random.randbytes(50))]

    def _chunk(self) -> list[Record]:
        if not self.model.specs:
            return []
        session, number = self.random.choice(list(self.model.specs))
        tasks, first = self.random.randint(1, 50), self.model.submitted[session, number]
        new = chunk(first, tasks, self.random.choice([1, 20, 300]), self.random.randbytes(1))
        return [PutChunk(session, number, new, [(0, tasks)])]

    def _progress(self) -> list[Record]:
        if not self.model.chunks:
            return []
        session, number, first = self.random.choice(list(self.model.chunks))
        left = self.model.chunks[session, number, first][1]
        lo, hi = self.random.choice(left)
        hi = self.random.randint(lo + 1, hi)
        done = outcome(number, first, lo, hi, self.random.randbytes(self.random.choice([0, 30, 2000])))
        return [PutOutcome(session, done), PutLeft(session, number, first, subtract(left, lo, hi))]

    def _delivered(self) -> list[Record]:
        if not self.model.outcomes:
            return []
        return [DropOutcome(*self.random.choice(list(self.model.outcomes)))]

    def _drop(self) -> list[Record]:
        if self.model.specs and self.random.random() < 0.7:
            return [DropSpec(*self.random.choice(list(self.model.specs)))]
        return [DropSession(self.random.choice(list(self.model.sessions)))] if self.model.sessions else []


def batches(seed: int) -> Iterator[list[Record]]:
    """For ever the same batches for the same seed. Each says in the body `MARK` which one it is."""
    churn = Churn(Random(seed))
    number = 0
    while True:
        number += 1
        yield [*churn.batch(), DropBody(MARK), PutBody(MARK, str(number).encode())]


def last_batch(bodies: dict[bytes, bytes]) -> int:
    """How many batches a store has, by its bodies."""
    return int(bodies.get(MARK, b"0"))


def main(path: str, seed: str, skip: str) -> None:
    """Write until killed, never more than a few batches ahead of the disk."""
    done = threading.Event()
    store = SqliteStore(Path(path), done.set)
    store.load()
    said = 0
    for batch in islice(batches(int(seed)), int(skip), None):
        for record in batch:
            store.append(record)
        ticket = store.flush()
        while True:
            done.clear()
            if store.committed > said:
                said = store.committed
                print(int(skip) + said, flush=True)
            if ticket - said < 20:
                break
            done.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
