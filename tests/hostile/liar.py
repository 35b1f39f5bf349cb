"""A lying worker: it takes the tasks of one client, and answers with whatever is no result. That client must survive.

Clients trust workers not to attack them by what they unpickle; but what is broken, of the wrong form, or of the wrong
length is the error of those tasks, and of nothing else.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from pathlib import Path

import msgpack

from taskmesh.core import messages as m
from taskmesh.wire.payload import dump, dump_each, dump_error

from .client_side import joined
from .target import Target

TASKS, ITEMS = 60, 60
SECONDS = 60.0
VICTIM = """
import sys
from pathlib import Path
from taskmesh import Mesh, wait
with Mesh(ticket=Path(sys.argv[1])) as mesh:
    futures = [mesh.submit(abs, n) for n in range(int(sys.argv[2]))]
    done, left = wait(futures, timeout=40)
    kinds = sorted({type(f.exception()).__name__ for f in done})
    maps = set()
    for n in range(int(sys.argv[3])):
        try:
            maps.add(str(list(mesh.map(abs, range(5), timeout=40))))
        except Exception as error:
            maps.add(type(error).__name__)
    print(len(left), "left;", *kinds, "|", *sorted(maps), flush=True)
print("survived", flush=True)
"""


class _Exits:
    def __reduce__(self) -> tuple[type[SystemExit], tuple[int]]:
        return SystemExit, (3,)


def blobs(tasks: int) -> list[tuple[int, bytes]]:
    """Forms, and what is in them instead of so many results."""
    long = pickle.dumps(list(range(tasks + 7)), 5)
    return [
        (m.Form.LIST, b""), (m.Form.LIST, b"no pickle"), (m.Form.LIST, bytes(5000)), (m.Form.LIST, long),
        (m.Form.LIST, pickle.dumps([], 5)), (m.Form.LIST, pickle.dumps({"a": 1}, 5)), (m.Form.LIST, dump(7)),
        (m.Form.LIST, b"\x80\x05" + b"(" * 100_000 + b"."), (m.Form.LIST, b"\x80\x05\x8e" + b"\xff" * 8 + b"x."),
        (m.Form.LIST, b"\x80\x05cno.such.module\nthing\n."), (m.Form.LIST, b"\x80\x05" + b"]" * 50_000 + b"."),
        (m.Form.EACH, b""), (m.Form.EACH, b"\xff\xff\xff\xff"), (m.Form.EACH, b"\1\0\0\0\xff\xff\xff\xffx"),
        (m.Form.EACH, dump_each([dump(1)] * (tasks + 1))), (m.Form.EACH, dump_each([b"no pickle"] * tasks)),
        (m.Form.CANCELLED, b"not empty"),
    ]  # fmt: skip


def single_blobs() -> list[tuple[int, bytes]]:
    """Of failures, which speak of one task."""
    raised = _dumps_reduce(_Exits())
    return [
        (m.Form.ERROR, b""), (m.Form.ERROR, dump(3)), (m.Form.ERROR, dump(("a", "b"))), (m.Form.ERROR, bytes(999)),
        (m.Form.ERROR, dump(("E", "text", "trace", b"no pickle"))),
        (m.Form.ERROR, dump(("E", "text", "trace", raised))),
        (m.Form.ERROR, dump((1, 2, 3, 4))), (m.Form.ERROR, dump_error(ValueError("x"))[:-9]),
        (m.Form.LOST, b""), (m.Form.LOST, b"\xc1"), (m.Form.LOST, b"\x91" * 2000), (m.Form.LOST, msgpack.packb({})),
        (m.Form.LOST, msgpack.packb({"kind": "timeout", "output": 7})), (m.Form.LOST, msgpack.packb(["why"])),
        (m.Form.LOST, msgpack.packb({"kind": "too large", "bytes": "many", "limit_bytes": None, "tasks": []})),
        (m.Form.LOST, msgpack.packb({"kind": "memory", "pid": 1, "worker": "w", "host": "h", "output": "\x1b[2J"})),
    ]  # fmt: skip


def _dumps_reduce(value: object) -> bytes:
    return pickle.dumps(value, 5)


def lie(target: Target, client_ticket: Path) -> list[str]:
    """Answer a client's calls and maps with lies; returns what was wrong with the client after that."""
    stop = threading.Event()
    liar = threading.Thread(target=_answer, args=(target, stop), daemon=True)
    liar.start()
    try:
        done = subprocess.run(
            [sys.executable, "-c", VICTIM, str(client_ticket), str(TASKS), str(ITEMS)],
            capture_output=True, text=True, timeout=SECONDS + 60, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return [f"the client hangs: {error.stdout!r} {error.stderr!r}"]
    finally:
        stop.set()
        liar.join(20.0)
    said = done.stdout + done.stderr
    wrong = [] if done.returncode == 0 and "survived" in said and said.startswith("0 left") else [said[-2000:]]
    return wrong + ([f"a bug: {said[-2000:]}"] if "bug in taskmesh" in said or "Traceback" in said else [])


def _answer(target: Target, stop: threading.Event) -> None:
    turn = 0
    with joined(target, "worker", slots=4) as insider:
        while not stop.is_set():
            message = insider.read(0.1)
            if isinstance(message, m.Dispatch):
                width = message.hi - message.lo
                choices = blobs(width) + (single_blobs() if width == 1 else [])
                form, blob = choices[turn % len(choices)]
                turn += 1
                outcome = m.Outcome(message.spec, message.chunk.first, message.lo, message.hi, form, blob)
                insider.send(m.Done([m.Finished(message.fence, message.session, 0.001, outcome)]))
            elif isinstance(message, m.Revoke):
                insider.send(m.GiveBack(message.fence, [], [(message.lo, message.hi)]))
            insider.acknowledge()
