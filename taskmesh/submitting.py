"""Submitting: everything from a call to the link. The way back is in `arrivals`.

Calls are gathered into chunks, and the items of a `map` come as chunks. Each waits for room in the window before
anything of it is recorded; what was recorded is sent even if the caller is stopped in the middle.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from .arrivals import Spec
from .collector import Collector
from .core import messages as m
from .core.gathering import Gathering
from .core.quota import largest_part
from .core.session import CHUNK_BYTES, CHUNK_TASKS, WEIGHT, MapOwner, OpenChunk
from .errors import HubUnreachable, PayloadError
from .futures import Future
from .sizes import show_size
from .window import Window
from .wire.stream import MAX_MESSAGE as LARGEST

if TYPE_CHECKING:
    from .client import Client
    from .places import Place

LARGE_CALL = 4096  # bytes: each such call is looked at by itself, and not only the first of a chunk
FILLING = 16
"""Functions whose calls are being gathered at the same time, at most."""

NEVER = float("inf")
_thread = threading.local()


def receives() -> bool:
    """Whether this thread is the receive thread of any mesh."""
    return getattr(_thread, "receives", False)


def receive_here() -> None:
    """This thread is the receive thread of a mesh."""
    _thread.receives = True


class Submitter:
    """What a session sends.

    Attributes: `open`, whether new calls are taken; `largest`, the longest message that the hub takes, in bytes;
    `retired`, specs that can be forgotten as soon as nothing of them is unsettled; `dropped`, whoever does not want any
    more outcomes. Finalizers add to these, at any moment and in any thread.

    Parameters
    ----------
    client
        The session's shell, with its lock, its link and the receive thread.
    window, window_timeout
        See `window.Window`.
    """

    def __init__(self, client: Client, window: int, window_timeout: float | None) -> None:
        self._client = client
        self._session = client.session
        self.window = Window(window, window_timeout, lambda: client.session.weight, lambda: not self.open)
        self.open = True
        self.closed = False  # the hub was told of the end: it has no session for anything that follows
        self.largest = LARGEST
        self.retired: deque[Spec] = deque()
        self.dropped: deque[MapOwner] = deque()
        self._gathering = Gathering()
        self._collector = Collector()

    # ---- callers --------------------------------------------------------------------------------------------

    def submit(self, place: Place, leaf: bytes) -> Future[Any]:
        """One more call; sends when the time has come (see `core.gathering`).

        Parameters
        ----------
        place
            Its function.
        leaf
            Its pickled arguments.

        Raises
        ------
        PayloadError
            The hub does not take so much.
        WindowFull
            There was no room in time.
        MeshClosed, HubUnreachable, RegistrationRefused
            The session has ended, and why.
        """
        spec, size = place.spec, len(leaf)
        if size >= LARGE_CALL:
            self.require_fit(size, f"the arguments of {spec.name}")
        lock = self._client.lock
        if lock._is_owned():  # type: ignore[attr-defined]
            self._client.refuse_reentry()
        waited = False
        try:
            while True:
                with lock:
                    if not self.open:
                        self._client.require_open()
                    chunk = spec.open
                    if chunk is not None and chunk.frozen:  # its sender was interrupted
                        self.seal(spec)
                        chunk = None
                    if (chunk is not None and size < LARGE_CALL) or self._has_room(size + WEIGHT):
                        if chunk is None:
                            chunk = self._open_chunk(spec)
                        calls = chunk.calls
                        future: Future[Any] = Future(place, chunk, len(calls))
                        calls.append((leaf, future))
                        chunk.size += size
                        if len(calls) >= chunk.most or chunk.size >= CHUNK_BYTES:
                            self.seal(spec)
                            self._collector.burst(self._gathering.sent_at)
                        elif len(calls) == 1 or self._gathering.due == NEVER:  # never: who began was interrupted there
                            self._gather(spec)
                        return future
                waited = True
                self._wait_for_room(size + WEIGHT)
        finally:
            if waited:
                self.window.leave()

    def _open_chunk(self, spec: Spec) -> OpenChunk[Future[Any]]:
        """The next chunk of a function. What is being gathered is not weighed, so it must not become much."""
        if len(self._session.filling) >= FILLING:
            self.flush_all()
        chunk = self._session.open_chunk(spec)
        chunk.most = min(CHUNK_TASKS, self.window.calls_left(WEIGHT))
        return chunk

    def _gather(self, spec: Spec) -> None:
        """A call that may have to wait for company. If it goes at once the receive thread is not woken for it."""
        now = monotonic()
        if self._gathering.goes_at_once(now, self._session.weight > 0):
            self.seal(spec)
        elif self._gathering.begin(now, self._client.in_receive_thread()):
            self._client.wake()

    def submit_items(
        self, place: Place, leaves: list[bytes], items: list[int], grain: int, owner: MapOwner
    ) -> tuple[int, int]:
        """A chunk of map leaves, `items[i]` of them in `leaves[i]`; returns number of its first task, and how many.

        Parameters and errors are those of `submit`; `grain`: see `core.chunk.Chunk`; `owner` takes the outcomes.
        """
        size = sum(map(len, leaves)) + WEIGHT * len(leaves)
        self.require_fit(size, f"the items of {place.name}")
        self._client.refuse_reentry()
        waited = False
        try:
            while True:
                with self._client.lock:
                    self._client.require_open()
                    if self._has_room(size):
                        self.seal(place.spec)
                        chunk = self._session.add_items(place.spec, leaves, items, grain, owner)
                        self.send_unsent()
                        return chunk.first, chunk.count
                waited = True
                self._wait_for_room(size)
        finally:
            if waited:
                self.window.leave()

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes may be added now. Asked under the lock: it holds until they are.

        What a callback submits is let through: its thread brings what others wait for, be it those of another mesh.
        """
        return self.window.fits(size) or receives()

    def _wait_for_room(self, size: int) -> None:
        if self.open:
            self.flush_all()  # what is still being gathered is not weighed yet
            self.window.wait(size)

    def require_fit(self, size: int, what: str) -> None:
        """Nothing is sent that the hub would drop.

        Raises
        ------
        PayloadError
            `what` is larger than that.
        """
        if size > largest_part(self.largest):
            raise PayloadError(
                f"{what} take {show_size(size)} pickled, and the hub at {self._client.control} takes messages of up to "
                f"{show_size(self.largest)} (--max-message): pass the name of a file, or split them"
            )

    def flush(self, spec: Spec) -> None:
        """Send what is still being gathered of one function."""
        if spec.open is not None:
            self._client.refuse_reentry()
            with self._client.lock:
                self.seal(spec)

    def flush_all(self) -> None:
        """Send everything that is still being gathered."""
        with self._client.lock:
            for spec in list(self._session.filling):
                self.seal(spec)

    # ---- under the lock -------------------------------------------------------------------------------------

    def seal(self, spec: Spec) -> None:
        """Send the open chunk of a function, if it has one."""
        submit = self._session.seal(spec)
        if submit is not None:
            self.send([submit])
            self._session.sealed(spec)

    def send(self, messages: Sequence[m.LinkMessage]) -> None:
        """Put messages on the link, after whatever was composed before by a caller that was stopped.

        Raises
        ------
        HubUnreachable
            There is no link yet.
        """
        membership = self._client.membership
        stream, unsent = membership.stream, self._session.unsent
        if stream is None:
            raise HubUnreachable(f"not joined to {self._client.control}")
        if unsent or messages:
            self._gathering.sent_at = monotonic()
        while unsent:
            stream.send(unsent[0])
            unsent.popleft()
        for message in messages:
            stream.send(message)
        membership.pump(self._client.now())

    def send_unsent(self) -> None:
        """Put on the link what was composed."""
        if self._session.unsent:
            self.send(())

    def close(self) -> None:
        """Tell the hub that nothing follows."""
        self.send([m.Close()])
        self.closed = True

    # ---- the receive thread ---------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether there is something for `send_gathered`."""
        gathered = self._gathering.ready(monotonic(), bool(self._session.filling))
        return gathered or bool(self.retired or self.dropped or self._session.unsent)

    def send_gathered(self) -> None:
        """Send what has been gathered for long enough, and tell the hub which functions are gone."""
        with self._client.lock:
            self._gathering.end()
            if self._client.error is not None or self._client.membership.stream is None:
                return
            self.send_unsent()
            for spec in list(self._session.filling):
                self.seal(spec)
            while self.dropped and not self.closed:
                self._cancel(self.dropped.popleft())
            while self.retired and not self.closed:
                self.send(self._session.retire(self.retired.popleft()))

    def _cancel(self, owner: MapOwner) -> None:
        self.send(self._session.cancel_where(lambda sent: sent.owner is owner))

    def next_deadline(self, now: float) -> float:
        """When `send_gathered` is due: never, at once (0.0), or a time of the loop, which says it is `now`."""
        if self._gathering.due == NEVER:
            return NEVER
        left_s = self._gathering.due - monotonic()
        return now + left_s if left_s > 0.0 else 0.0  # a wait of some microseconds would be rounded up to a millisecond

    def relax(self, now: float) -> None:
        """Let the garbage collector work as usual again, if no burst of calls is going on."""
        self._collector.relax(now)
