"""The process of a private mesh, by itself: started again, and ended, also both at once."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import psutil
import pytest

from taskmesh.errors import MeshStartError
from taskmesh.launch import RESTARTS_PER_MINUTE, PrivateHub

from .processes import alive, kill, until


def descriptors() -> int:
    return psutil.Process().num_fds()


def die(hub: PrivateHub) -> None:
    kill(hub.pid)
    until(lambda: hub._process is not None and hub._process.poll() is not None, "all its threads have ended")


def test_a_hub_that_died_is_started_again_and_one_that_lives_is_not() -> None:
    hub = PrivateHub(1)
    try:
        hub.wait_ready()
        first = hub.pid
        hub.revive()
        assert hub.pid == first
        die(hub)
        hub.revive()
        assert hub.pid != first
    finally:
        hub.close()
    assert not alive(hub.pid)
    assert not Path(hub.directory).exists()


def test_a_process_with_many_open_files_can_start_a_hub() -> None:
    with contextlib.ExitStack() as stack:
        try:
            for _ in range(1100):
                stack.enter_context(open(os.devnull))
        except OSError:
            pytest.skip("so many files may not be open")
        hub = PrivateHub(1)
        stack.callback(hub.close)
        hub.wait_ready()


def test_a_hub_that_dies_again_and_again_is_given_up() -> None:
    hub = PrivateHub(1)
    try:
        hub.wait_ready()
        for _ in range(RESTARTS_PER_MINUTE):
            die(hub)
            hub.revive()
        die(hub)
        with pytest.raises(MeshStartError, match="died 6 times within a minute"):
            hub.revive()
    finally:
        hub.close()


def test_a_mesh_that_ends_while_its_hub_is_started_again_leaves_nothing() -> None:
    before = descriptors()
    hub = PrivateHub(1)
    hub.wait_ready()
    first = hub.pid
    die(hub)
    raised: list[BaseException] = []

    def revive() -> None:
        try:
            hub.revive()
        except BaseException as error:
            raised.append(error)

    reviving = threading.Thread(target=revive)
    reviving.start()
    until(lambda: hub.pid != first, "it is being started again")
    hub.close()
    reviving.join(20)
    assert not reviving.is_alive()
    assert all(type(error) is MeshStartError for error in raised), "if it was not ready before it was ended"
    assert not alive(hub.pid)
    assert not Path(hub.directory).exists()
    assert descriptors() == before
    hub.revive()
    assert not alive(hub.pid), "what is closed is not started again"
