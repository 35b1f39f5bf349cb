"""The client of a chaos run (`python -m benchmarks.chaos.client CONFIG`): says how far it is, and what came."""

import json
import sys
import time
from collections import Counter
from typing import NamedTuple

from taskmesh import Future, Mesh

OUTSTANDING = 20_000
SAY_EVERY_S = 0.2


class Config(NamedTuple):
    """What to submit, and where."""

    address: str
    tasks: int
    work_s: float
    record: str


class Book:
    """What became of every task; told by callbacks, in the mesh's own thread."""

    def __init__(self, tasks: int) -> None:
        self.calls = bytearray(tasks)
        self.wrong = 0
        self.errors: Counter[str] = Counter()
        self.done = 0
        self.longest_s = 0.0
        self.last_at = time.monotonic()

    def note(self, number: int, future: "Future[int]") -> None:
        """A future is done."""
        now = time.monotonic()
        self.longest_s = max(self.longest_s, now - self.last_at)
        self.last_at = now
        self.calls[number] += 1
        error = future.exception()
        if error is not None:
            self.errors[f"{type(error).__name__}: {error}"[:300]] += 1
        elif future.result() != number:
            self.wrong += 1
        self.done += 1

    def document(self, began: float) -> dict[str, object]:
        """For the driver."""
        return {
            "took_s": self.last_at - began,
            "longest_s": self.longest_s,
            "missing": self.calls.count(0),
            "repeated": len(self.calls) - self.calls.count(0) - self.calls.count(1),
            "wrong": self.wrong,
            "errors": dict(self.errors.most_common(10)),
        }


def recorded(path: str, number: int, seconds: float) -> int:
    """Work for a while, then put the number, this process and the time on record, in one write."""
    import os  # this function travels by value: daemons need not have this file

    if seconds:
        time.sleep(seconds)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, b"%d %d %d\n" % (number, os.getpid(), time.monotonic_ns()))
    os.close(file)
    return number


def main(config: Config) -> None:
    """Submit everything, wait for everything."""
    book = Book(config.tasks)
    said_at = 0.0
    with Mesh(config.address, connect_timeout=30.0) as mesh:
        began = book.last_at = time.monotonic()
        submitted = 0
        while book.done < config.tasks:
            while submitted < config.tasks and submitted - book.done < OUTSTANDING:
                future = mesh.submit(recorded, config.record, submitted, config.work_s)
                future.add_done_callback(lambda future, number=submitted: book.note(number, future))  # type: ignore[misc]
                submitted += 1
            if time.monotonic() - said_at > SAY_EVERY_S:
                said_at = time.monotonic()
                print(json.dumps({"done": book.done}), flush=True)
            time.sleep(0.01)
        document = book.document(began)
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main(Config(**json.loads(sys.argv[1])))
