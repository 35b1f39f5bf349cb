"""Outcomes on their way out of a runner: gathered, pickled, sent when the last ones are 1 ms old (2 ms if tiny)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

from taskmesh.core.limits import RESULT
from taskmesh.core.messages import Form
from taskmesh.errors import PayloadError
from taskmesh.wire.payload import ATOMS, describe, dump, dump_each, dump_error
from taskmesh.wire.pipe import PipeOutcome, pack_outcome

FLUSH_S = 0.001
EACH_BYTES = 8  # of a blob of form EACH beside each pickle, at most
BLOCKS_S = 0.002  # of items that are so short that they are run by blocks: each outcome costs more than many of them


class Results:
    """Outcomes that wait to be sent: runs of values, sent as one pickle while nobody can change them any more.

    A value of a type in `ATOMS` may be pickled later, with its neighbours. Any other value of a call is pickled at
    once, since the next task may change it; then so is the rest of that run. Values of one map leaf share identity
    (documented), and are pickled together when they are sent.
    """

    def __init__(self, send: Callable[[list[bytes | memoryview]], None]) -> None:
        self._send = send
        self._at = 0
        self._values: list[Any] = []
        self._pickles: list[bytes] | None = None
        self._out: list[bytes | memoryview] = []
        self._name = ""
        self._flushed_at = perf_counter()
        self._run_since = self._flushed_at
        self._every_s = FLUSH_S
        self._largest = RESULT

    def begin(self, at: int, name: str, blocks: bool = False, largest: int = RESULT) -> None:
        """A dose of the function `name` begins at position `at`.

        If its items are run by `blocks`, the first result need not be reported at once.
        `largest`: how many bytes may travel together. More is split between results; a single result of more fails.
        """
        self._at = at
        self._name = name
        self._largest = largest
        self._run_since = perf_counter()
        self._every_s = BLOCKS_S if blocks else FLUSH_S
        if blocks and not self._out:
            self._flushed_at = self._run_since

    def exempt(self, seconds: float) -> None:
        """So much of the time since the last outcome is not to be counted as work."""
        self._run_since += seconds

    def end(self) -> None:
        """A dose has ended: an outcome speaks of one dose only. What there is may wait for more."""
        self._close_run()

    def value(self, value: Any, name: str) -> None:
        """The result of one call."""
        self._name = name
        if self._pickles is None and type(value) in ATOMS:
            self._values.append(value)
        else:
            self._add_pickle(value)
        now = perf_counter()
        if now - self._flushed_at >= FLUSH_S:
            self._flush(now)

    def _add_pickle(self, value: Any) -> None:
        if self._pickles is None:
            self._pickles = [dump(atom) for atom in self._values]
            self._values.clear()
        try:
            data = dump(value)
        except BaseException as error:
            self.error(_unpicklable(error, self._name))
        else:
            self._pickles.append(data)

    def run_of(self, name: str) -> list[Any]:
        """The list that the results of a block of items are to be added to. `added` says that they were."""
        self._name = name
        if self._pickles is not None:
            self._close_run()
        return self._values

    def added(self, values: list[Any], start: int) -> None:
        """`values[start:]` are results of items: of the run, unless that list was sent meanwhile."""
        if values is not self._values:
            self._values += values[start:]
        now = perf_counter()
        if now - self._flushed_at >= self._every_s:
            self._flush(now)

    def error(self, blob: bytes) -> None:
        """One task failed."""
        self._close_run()
        self._add(1, Form.ERROR, blob)
        now = perf_counter()
        if now - self._flushed_at >= FLUSH_S:
            self._flush(now)

    def cancelled(self) -> None:
        """One task was interrupted because its client had cancelled it."""
        self._close_run()
        self._add(1, Form.CANCELLED, b"")
        self.flush()

    def flush(self) -> None:
        """Send whatever waits."""
        self._flush(perf_counter())

    def _flush(self, now: float) -> None:
        self._close_run()
        self._flushed_at = now
        if self._out:
            out, self._out = self._out, []
            self._send(out)

    def _close_run(self) -> None:
        if self._pickles is not None:
            pickles, self._pickles = self._pickles, None
            for part in _cut(pickles, self._largest):
                self._add(len(part), Form.EACH, dump_each(part))
        elif self._values:
            values, self._values = self._values, []
            try:
                blob = dump(values)
            except BaseException:
                self._close_one_by_one(values)
            else:
                if len(blob) > self._largest and len(values) > 1:
                    self._close_one_by_one(values)
                else:
                    self._add(len(values), Form.LIST, blob)

    def _close_one_by_one(self, values: list[Any]) -> None:
        """One of these cannot be pickled, and fails alone; or they are too large to travel together."""
        for value in values:
            try:
                self._add(1, Form.EACH, dump_each([dump(value)]))
            except BaseException as error:
                self._add(1, Form.ERROR, _unpicklable(error, self._name))

    def _add(self, count: int, form: int, blob: bytes) -> None:
        if len(blob) > self._largest:
            what = f"the {'exception' if form == Form.ERROR else 'result'} of {self._name}"
            form, blob = Form.ERROR, dump_error(_too_large(what, len(blob), self._largest))
        now = perf_counter()
        self._out += pack_outcome(PipeOutcome(self._at, count, form, now - self._run_since, blob))
        self._at += count
        self._run_since = now


def _cut(pickles: list[bytes], largest: int) -> Iterator[list[bytes]]:
    """Consecutive pickles that may travel together, as `dump_each` packs them."""
    part: list[bytes] = []
    size = 0
    for pickled in pickles:
        if part and size + len(pickled) + EACH_BYTES > largest:
            yield part
            part, size = [], 0
        part.append(pickled)
        size += len(pickled) + EACH_BYTES
    if part:
        yield part


def _too_large(what: str, size: int, limit: int) -> PayloadError:
    return PayloadError(
        f"{what} takes {size:,} bytes pickled, and the hub takes up to {limit:,} (taskmesh hub --max-message): "
        f"write it to a file and return the name, or return less"
    )


def _unpicklable(error: BaseException, name: str) -> bytes:
    type_name, text = describe(error)
    failure = PayloadError(f"the result of {name} cannot be pickled: {type_name}: {text}")
    failure.__cause__ = error
    return dump_error(failure)
