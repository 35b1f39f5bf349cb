"""A client opens results of its own tasks only: a pickle runs code, and a hub that is not honest could send any."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskmesh.client import Client
from taskmesh.core import messages as m
from taskmesh.core.access import NEVER
from taskmesh.wire.payload import dump_call
from taskmesh.wire.stream import Stream


class Touch:
    """When it is unpickled, a file appears."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.open, (str(self.path), os.O_CREAT | os.O_RDONLY)


@pytest.fixture
def client() -> Iterator[Client]:
    """A session with a link and no sockets behind it, that has submitted one task, number 0 of spec 1."""
    client = Client("ipc:///nowhere", "cautious", lost_after=NEVER)
    client.membership.stream = Stream(7, 1)
    place = client.define("double", b"a function", b"d" * 16, None, 0)
    future = client.submitter.submit(place, dump_call((1,), {}, "double"))
    client.submitter.flush_all()
    assert not future.done()
    yield client
    client.membership.close(0)
    client._context.destroy(linger=0)
    client._loop.close()
    client._waker.close()


@pytest.mark.parametrize(
    ("outcome", "opened"),
    [
        (m.Outcome(1, 0, 0, 1, m.Form.LIST, b""), True),
        (m.Outcome(2, 0, 0, 1, m.Form.LIST, b""), False),
        (m.Outcome(1, 7, 0, 1, m.Form.LIST, b""), False),
        (m.Outcome(1, 0, 1, 2, m.Form.LIST, b""), False),
        (m.Outcome(1, 0, 0, 2, m.Form.LIST, b""), False),
        (m.Outcome(2, 0, 0, 1, m.Form.ERROR, b""), False),
    ],
    ids=["its own", "another function", "another chunk", "another task", "more tasks", "an error of another"],
)
def test_only_results_of_its_own_tasks_are_unpickled(
    client: Client, tmp_path: Path, outcome: m.Outcome, opened: bool
) -> None:
    trap = tmp_path / "opened"
    client.on_message(m.Results([outcome._replace(blob=pickle.dumps([Touch(trap)]))]))
    assert trap.exists() == opened


def test_a_result_that_comes_again_is_not_unpickled_again(client: Client, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    for trap in (first, again):
        client.on_message(m.Results([m.Outcome(1, 0, 0, 1, m.Form.LIST, pickle.dumps([Touch(trap)]))]))
    assert first.exists()
    assert not again.exists()
