"""What a runner does with doses, seen from the daemon's end of its socketpair."""

from __future__ import annotations

import functools
import importlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.core.identity import digest_of
from taskmesh.core.messages import Form
from taskmesh.errors import InitializerFailed, PayloadError
from taskmesh.task import current_task
from taskmesh.wire import pipe
from taskmesh.wire.payload import dump, dump_body, dump_call, load_each, load_error, loads
from taskmesh.wire.pipe import CLAIM_BITS
from taskmesh_worker.cells import CLAIMED, LOADING, Cells, create
from taskmesh_worker.runner import Runner
from taskmesh_worker.tee import Tail

UNLIMITED = 10**6


class Daemon:
    """The other end: hands out doses, collects what comes back."""

    def __init__(self) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(20)
        fd = create()
        self.cells = Cells(os.dup(fd))
        self.cells.set_limit(UNLIMITED)
        self._frames = pipe.Frames()
        self._ready: list[tuple[int, bytes]] = []
        self._theirs = theirs
        self._runner_cells = Cells(fd)
        self.runner = Runner(theirs, self._runner_cells, "here")
        self._thread = threading.Thread(target=self.runner.run, daemon=True)
        self._thread.start()
        assert self.read()[0] == pipe.READY
        self.at = 0

    def read(self) -> tuple[int, bytes]:
        while not self._ready:
            self._ready += self._frames.feed(self.sock.recv(65536))
        return self._ready.pop(0)

    def send(self, buffers: pipe.Buffers) -> None:
        self.sock.sendall(b"".join(buffers))

    def body(self, function: Callable[..., Any]) -> bytes:
        """The runner gets a function; returns its digest."""
        data = dump_body(function, "f")
        digest = digest_of(data)
        self.send(pipe.frame(pipe.BODY, digest, data))
        return digest

    def hand(
        self,
        digest: bytes,
        chunk: Chunk,
        lo: int = 0,
        hi: int | None = None,
        *,
        block: int = 1,
        known: bool = True,
        init: bytes = b"",
    ) -> None:
        """The next dose: offsets `[lo, hi)` of a chunk; at once in blocks if it is `known` that they are very short."""
        end = chunk.end if hi is None else hi
        if block > 1 and known:
            self.runner._blocks.begin(0xAB, 4)
            self.runner._blocks.size = block
        dose = pipe.Dose(self.at, 0xAB, 4, 2, lo, end, block, "f", digest, init, chunk.cut(lo, end))
        self.at += end - lo
        self.send(pipe.pack_dose(dose))

    def results(self) -> list[Any]:
        """Results and errors up to the last position handed out; what was skipped comes as `PipeStopped`."""
        said: list[Any] = []
        at = 0
        while at < self.at:
            kind, body = self.read()
            if kind == pipe.STOPPED:
                stopped = pipe.unpack_stopped(body)
                assert stopped.at == at
                said.append(stopped)
                at = stopped.end
                continue
            outcome = pipe.unpack_outcome(body)
            assert outcome.at == at, "outcomes come in order, without gaps"
            at += outcome.tasks
            match outcome.form:
                case Form.LIST:
                    values = loads(outcome.blob)
                case Form.EACH:
                    values = [loads(data) for data in load_each(outcome.blob)]
                case _:
                    values = [load_error(outcome.blob)]
            assert len(values) == outcome.tasks
            said += values
        return said

    def close(self) -> None:
        self.sock.close()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._theirs.close()
        self.cells.close()
        self._runner_cells.close()


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setattr(importlib.import_module("taskmesh.task"), "_current", None)
    daemon = Daemon()
    yield daemon
    daemon.close()


def of_calls(*arguments: tuple[object, ...], first: int = 0) -> Chunk:
    leaves = [dump_call(args, {}, "f") for args in arguments]
    return Chunk(first, 0, len(leaves), pack_sizes([len(x) for x in leaves]), b"", 1, b"".join(leaves))


def of_items(*leaves: Any, first: int = 0) -> Chunk:
    """Each leaf a list of items, or a tuple of columns."""
    data = [dump(leaf) for leaf in leaves]
    counts = [len(leaf[0] if isinstance(leaf, tuple) else leaf) for leaf in leaves]
    sizes = pack_sizes([len(x) for x in data])
    return Chunk(first, 0, sum(counts), sizes, pack_sizes(counts), 1, b"".join(data))


def inverse(x: int) -> float:
    return 1 / x


# ---- results --------------------------------------------------------------------------------------------------------


def test_calls_are_run_in_order_and_one_failure_stays_alone(daemon: Daemon) -> None:
    daemon.hand(daemon.body(inverse), of_calls((1,), (0,), (4,)))
    first, error, last = daemon.results()
    assert (first, last) == (1.0, 0.25)
    assert isinstance(error, ZeroDivisionError)
    assert "inverse" in str(error.__cause__)
    assert "taskmesh_worker" not in str(error.__cause__), "our own frames are left out"


def test_keyword_arguments_arrive(daemon: Daemon) -> None:
    leaf = dump_call((10,), {"base": 3}, "f")
    daemon.hand(daemon.body(lambda x, base: (x, base)), Chunk(0, 0, 1, pack_sizes([len(leaf)]), b"", 1, leaf))
    assert daemon.results() == [(10, 3)]


def test_of_a_chunk_of_calls_only_the_range_is_run(daemon: Daemon) -> None:
    chunk = of_calls(*((n,) for n in range(1, 10)))
    daemon.hand(daemon.body(inverse), chunk, 3, 5)
    assert daemon.results() == [1 / 4, 1 / 5]


@pytest.mark.parametrize("block", [1, 2, 64])
@pytest.mark.parametrize(("lo", "hi"), [(0, 10), (2, 5), (3, 4), (4, 9)])
def test_items_of_leaves_are_run_by_ranges(daemon: Daemon, block: int, lo: int, hi: int) -> None:
    chunk = of_items([0, 1, 2, 3], [4, 5], [6, 7, 8, 9])
    daemon.hand(daemon.body(lambda x: x * x), chunk, lo, hi, block=block)
    assert daemon.results() == [n * n for n in range(lo, hi)]


class SlowToUnpickle:
    """An argument that takes 0.2 s to unpickle."""

    def __reduce__(self) -> tuple[Callable[[float], None], tuple[float]]:
        return time.sleep, (0.2,)


def test_a_task_counts_its_share_of_the_time_to_unpickle_its_leaf(daemon: Daemon) -> None:
    leaf: list[Any] = [SlowToUnpickle(), 1, 2, 3]
    daemon.hand(daemon.body(type), of_items(leaf), 0, 1)
    kind, body = daemon.read()
    assert kind == pipe.OUTCOME
    assert 0.05 <= pipe.unpack_outcome(body).busy_s < 0.15


class LooksWhenLoaded:
    """Asks, wherever it is unpickled, who would be to blame if that were the end."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return call_hook, ("look",)


def call_hook(name: str) -> object:
    return taskmesh_test_hooks[name](0)


@pytest.mark.parametrize("where", ["items", "function", "initializer"])
def test_what_is_loaded_for_a_task_counts_as_that_task(daemon: Daemon, where: str) -> None:
    seen: list[tuple[tuple[int, int], tuple[int, int]]] = []

    def look(_: int) -> int:
        seen.append((daemon.cells.to_blame(), daemon.cells.claimed()))
        return 0

    taskmesh_test_hooks["look"] = look
    known = daemon.body(type)
    daemon.hand(known, of_items([1, 2, 3]))
    loaded = LooksWhenLoaded()
    if where == "items":
        chunk = of_items([1, loaded, 2])
        chunk.first = 10  # or it would be the one whose leaf is kept
        daemon.hand(known, chunk, 1, 3)
    elif where == "function":
        daemon.hand(daemon.body(functools.partial(min, loaded)), of_items([5, 6]))
    else:
        daemon.hand(known, of_items([1, 2]), init=daemon.body(functools.partial(call_hook, "look")))
    assert daemon.results()[:3] == [int, int, int]
    assert seen == [((3, 4), (2, 3))]
    assert daemon.cells.to_blame() == daemon.cells.claimed() == (4, 5)


def test_items_of_several_columns_are_called_with_one_of_each(daemon: Daemon) -> None:
    daemon.hand(daemon.body(lambda a, b: a + b), of_items(([1, 2], [10, 20])), block=64)
    assert daemon.results() == [11, 22]


@pytest.mark.parametrize("block", [1, 3, 64])
def test_failures_within_a_block_are_told_apart(daemon: Daemon, block: int) -> None:
    daemon.hand(daemon.body(inverse), of_items([1, 0, 2, 0, 0, 4]), block=block)
    said = daemon.results()
    assert [x for x in said if isinstance(x, float)] == [1.0, 0.5, 0.25]
    assert [n for n, x in enumerate(said) if isinstance(x, ZeroDivisionError)] == [1, 3, 4]


@pytest.mark.parametrize("block", [1, 64])
@pytest.mark.parametrize("error", [StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_errors_that_end_loops_and_programs_end_neither(daemon: Daemon, block: int, error: type[BaseException]) -> None:
    def odd(x: int) -> int:
        if x % 2:
            raise error
        return x

    digest = daemon.body(odd)
    daemon.hand(digest, of_items([0, 1, 2, 3]), block=block)
    daemon.hand(digest, of_calls((4,), (5,)))
    said = daemon.results()
    assert [type(x) for x in said] == [int, error, int, error, int, error]


def test_a_result_is_what_it_was_when_its_task_ended(daemon: Daemon) -> None:
    shared: list[int] = []

    def grow(x: int, shared: list[int] = shared) -> list[int]:
        shared.append(x)
        return shared

    daemon.hand(daemon.body(grow), of_calls((1,), (2,), (3,)))
    assert daemon.results() == [[1], [1, 2], [1, 2, 3]]


def test_a_result_that_cannot_travel_fails_alone(daemon: Daemon) -> None:
    def maybe(x: int) -> Any:
        return threading.Lock() if x == 1 else [x]

    digest = daemon.body(maybe)
    daemon.hand(digest, of_calls((0,), (1,), (2,)))
    daemon.hand(digest, of_items([0, 1, 2]), block=64)
    said = daemon.results()
    assert [said[n] for n in (0, 2, 3, 5)] == [[0], [2], [0], [2]]
    for failure in (said[1], said[4]):
        assert isinstance(failure, PayloadError)
        assert "the result of f cannot be pickled" in str(failure)


# ---- what cannot be loaded ------------------------------------------------------------------------------------------


def test_arguments_that_do_not_unpickle_fail_their_own_task_only(daemon: Daemon) -> None:
    leaves = [dump_call((2,), {}, "f"), b"nonsense", dump_call((4,), {}, "f")]
    chunk = Chunk(0, 0, 3, pack_sizes([len(x) for x in leaves]), b"", 1, b"".join(leaves))
    daemon.hand(daemon.body(inverse), chunk)
    first, failure, last = daemon.results()
    assert (first, last) == (0.5, 0.25)
    assert isinstance(failure, PayloadError)


def test_a_leaf_that_does_not_unpickle_fails_its_own_items_only(daemon: Daemon) -> None:
    good = dump([1, 2])
    chunk = Chunk(0, 0, 5, pack_sizes([4, len(good)]), pack_sizes([3, 2]), 1, b"evil" + good)
    daemon.hand(daemon.body(inverse), chunk, 1, 5)
    said = daemon.results()
    assert [type(x) for x in said] == [PayloadError, PayloadError, float, float]


def test_a_function_that_cannot_be_loaded_fails_every_task(daemon: Daemon) -> None:
    digest = b"d" * 16
    daemon.send(pipe.frame(pipe.BODY, digest, b"nonsense"))
    daemon.hand(digest, of_calls((1,), (2,)))
    assert all(isinstance(x, PayloadError) for x in daemon.results())


def test_an_initializer_runs_once_and_its_failure_fails_every_task(daemon: Daemon) -> None:
    def broken() -> None:
        raise KeyError("no licence")

    init, digest = daemon.body(broken), daemon.body(inverse)
    daemon.hand(digest, of_calls((1,), (2,)), init=init)
    said = daemon.results()
    assert all(isinstance(x, InitializerFailed) for x in said)
    assert "KeyError on here: 'no licence'" in str(said[0])


def test_a_dropped_function_is_loaded_anew(daemon: Daemon) -> None:
    digest = daemon.body(inverse)
    daemon.send(pipe.frame(pipe.DROP, digest))
    daemon.hand(digest, of_calls((1,)))
    assert isinstance(daemon.results()[0], PayloadError)


# ---- claim and limit ------------------------------------------------------------------------------------------------


def test_nothing_behind_the_limit_is_started(daemon: Daemon) -> None:
    daemon.cells.set_limit(2)
    digest = daemon.body(lambda x: x)
    daemon.hand(digest, of_calls(*((n,) for n in range(5))))
    daemon.hand(digest, of_calls((9,)))
    assert daemon.results() == [0, 1, pipe.PipeStopped(2, 5), pipe.PipeStopped(5, 6)]
    assert daemon.cells.claimed() == (1, 2)


def test_a_block_is_claimed_as_a_whole_or_not_at_all(daemon: Daemon, short_items: None) -> None:
    daemon.cells.set_limit(5)
    daemon.hand(daemon.body(lambda x: x), of_items(list(range(8))), block=4)
    assert daemon.results() == [0, 1, 2, 3, pipe.PipeStopped(4, 8)]
    assert daemon.cells.claimed() == (0, 4)


def test_blocks_grow_while_items_turn_out_to_be_very_short(daemon: Daemon, short_items: None) -> None:
    claims: list[tuple[int, int]] = []

    def look(x: int) -> int:
        claims.append(daemon.cells.claimed())
        return x

    taskmesh_test_hooks["look"] = look
    daemon.runner._blocks.size = 64  # of another function
    daemon.hand(daemon.body(hooked), of_items(list(range(20))), block=64, known=False)
    assert daemon.results() == list(range(20))
    assert sorted(set(claims)) == [(0, 1), (1, 3), (3, 7), (7, 15), (15, 20)]


def test_the_rest_of_a_block_is_not_claimed_any_more_when_an_item_of_it_takes_long(daemon: Daemon) -> None:
    claims: list[tuple[int, int]] = []

    def look(x: int) -> int:
        if x == 1:
            daemon.runner.on_flush(0, sys._getframe())
            daemon.cells.set_limit(3)
        claims.append(daemon.cells.claimed())
        return x

    taskmesh_test_hooks["look"] = look
    daemon.hand(daemon.body(hooked), of_items(list(range(8))), block=8)
    assert daemon.results() == [0, 1, 2, pipe.PipeStopped(3, 8)]
    assert claims == [(0, 8), (1, 2), (2, 3)]


@pytest.mark.parametrize("last", [0, 1, 6, 7])
def test_a_block_that_was_cut_leaves_nothing_out(daemon: Daemon, last: int) -> None:
    def look(x: int) -> int:
        if x == last:
            daemon.runner.on_flush(0, sys._getframe())
            daemon.runner.on_flush(0, sys._getframe())
        if x == last + 1:
            raise ValueError(x)
        return x

    taskmesh_test_hooks["look"] = look
    daemon.hand(daemon.body(hooked), of_items(list(range(8))), block=8)
    said = daemon.results()
    assert [x for x in said if isinstance(x, int)] == [x for x in range(8) if x != last + 1]
    assert len(said) == 8


def test_a_limit_that_is_lowered_while_a_task_runs_stops_the_next_one(daemon: Daemon) -> None:
    words = daemon.cells.words
    claims: list[tuple[int, int]] = []

    def look(x: int) -> int:
        claims.append(daemon.cells.claimed())
        if x == 1:
            words[1] = 0
        return x

    taskmesh_test_hooks["look"] = look
    daemon.hand(daemon.body(hooked), of_calls(*((n,) for n in range(4))))
    assert daemon.results() == [0, 1, pipe.PipeStopped(2, 4)]
    assert claims == [(0, 1), (1, 2)], "a task is claimed before it starts"


@pytest.fixture
def short_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """All items pass for very short ones, on the slowest machine."""
    monkeypatch.setattr("taskmesh_worker.blocks.BELOW_S", float("inf"))
    monkeypatch.setattr("taskmesh_worker.blocks.BLOCK_S", 1e6)


taskmesh_test_hooks: dict[str, Callable[[int], int]] = {}


def hooked(x: int) -> int:
    return taskmesh_test_hooks["look"](x)


def test_an_interrupt_that_comes_while_the_runner_answers_another_signal_leaves_nothing_out(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, send, interrupted = daemon.runner, daemon.runner._results._send, False

    def interrupted_send(buffers: list[bytes | memoryview]) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            daemon.cells.set_interrupt(2, pipe.Reason.CANCELLED)
            runner.on_interrupt(0, sys._getframe())
        send(buffers)

    def look(x: int) -> int:
        if x == 2:
            monkeypatch.setattr(runner._results, "_send", interrupted_send)
            runner.on_flush(0, sys._getframe())
        return x

    taskmesh_test_hooks["look"] = look
    daemon.hand(daemon.body(hooked), of_items([0, 1, 2, 3]), block=4)
    assert daemon.results() == [0, 1, 2, 3]
    assert interrupted


class Interrupted(list[int]):
    """A column, and an interrupt that comes when its iterator is made: before the first item of the block has begun."""

    daemon: Daemon

    def __iter__(self) -> Iterator[int]:
        self.daemon.runner.on_interrupt(0, sys._getframe())
        return super().__iter__()


def test_an_interrupt_that_comes_too_late_does_not_hit_the_next_item(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = Interrupted([2])
    column.daemon = daemon
    columns = daemon.runner._columns

    def prepared(dose: pipe.Dose, *where: Any) -> Any:
        found = columns(dose, *where)
        return ([2], column) if dose.lo == 2 else found

    monkeypatch.setattr(daemon.runner, "_columns", prepared)
    daemon.cells.set_interrupt(1, pipe.Reason.CANCELLED)
    digest, chunk = daemon.body(lambda a, b: a + b), of_items(([0, 1], [0, 1]), ([2], [2]))
    daemon.hand(digest, chunk, 0, 2)
    daemon.hand(digest, chunk, 2, 3)
    assert daemon.results() == [0, 2, 4]


def test_items_that_a_leaf_does_not_have_fail_and_no_others_run_in_their_place(daemon: Daemon) -> None:
    short = of_items([0, 1, 2])
    told = Chunk(0, 0, 5, short.sizes, pack_sizes([5]), 1, short.payload)
    daemon.hand(daemon.body(lambda x: x), told, block=64)
    said = daemon.results()
    assert said[:3] == [0, 1, 2]
    assert [type(x) for x in said[3:]] == [StopIteration, StopIteration]


# ---- what a task knows of itself ------------------------------------------------------------------------------------


def who(_: int) -> str:
    info = current_task()
    assert info is not None
    return f"{info.id} {info.attempt} {info.name} {info.host}"


@pytest.mark.parametrize("block", [1, 2, 64])
def test_a_task_knows_which_one_it_is(daemon: Daemon, block: int) -> None:
    digest = daemon.body(who)
    daemon.hand(digest, of_items([0, 0, 0], [0, 0], first=100), 1, 5, block=block)
    daemon.hand(digest, of_calls((0,), (0,), first=200))
    numbers = [101, 102, 103, 104, 200, 201]
    assert daemon.results() == [f"00000000000000ab-4-{n} 2 f here" for n in numbers]


# ---- the pipe -------------------------------------------------------------------------------------------------------


def test_a_dose_that_arrives_byte_by_byte_is_run(daemon: Daemon) -> None:
    digest = daemon.body(inverse)
    chunk = of_calls((2,))
    dose = pipe.Dose(0, 1, 1, 1, 0, 1, 1, "f", digest, b"", chunk)
    daemon.at = 1
    for byte in b"".join(pipe.pack_dose(dose)):
        daemon.sock.sendall(bytes([byte]))
    assert daemon.results() == [0.5]


def test_a_claim_names_where_it_begins() -> None:
    fd = create()
    cells = Cells(fd)
    cells.words[0] = 1000 << 12 | 64
    assert cells.claimed() == (936, 1000)
    cells.set_limit(2**60)
    assert cells.words[1] == 2**60
    cells.close()


def test_lines_of_a_task_that_has_ended_are_not_those_of_what_is_loaded_next() -> None:
    cells = Cells(create())
    tail = Tail(cells)
    cells.words[CLAIMED] = 1 << CLAIM_BITS | 1
    tail.add("of the first")
    assert cells.printed() == b"of the first"
    cells.words[LOADING] = 2 << CLAIM_BITS
    assert cells.printed() == b""
    tail.add("of the second")
    assert cells.printed() == b"of the second"
    cells.close()
