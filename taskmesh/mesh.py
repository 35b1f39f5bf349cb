"""`Mesh`: what a script holds of a mesh. A `concurrent.futures.Executor`.

A private mesh is started with it and gone with it; otherwise it is a session at a running hub.

The client's half, sockets and all, is imported when a mesh is made: a private one starts its hub before that, so that
both load at the same time.
"""

from __future__ import annotations

import concurrent.futures
import os
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from . import meshes
from .callables import pack_initializer, unwrap
from .errors import HubUnreachable
from .futures import Future
from .launch import PrivateHub
from .places import Place, Places
from .task import Task
from .window import WINDOW
from .wire.payload import dump_call

if TYPE_CHECKING:
    from .client import Client
    from .joining import HubChoice

P = ParamSpec("P")
R = TypeVar("R")


PRIVATE_TIMEOUT_S = 10.0  # at least: a hub of our own is there, and only a busy machine makes it answer late


def default_workers() -> int:
    """How many runners a mesh has when nobody says: one for each processor that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Mesh(concurrent.futures.Executor):
    """A private mesh on this machine, or a session at a running hub.

    Parameters
    ----------
    address
        `tcp://host:port` of a hub to join; None, without a ticket, starts a private mesh: hub, daemon and runners on
        this machine, over sockets in a directory of their own, gone when the mesh is closed, or its process ends,
        however it does.
    ticket
        Path of the ticket with which to join a hub, whose address is in it. Without one, `$TASKMESH_TICKET` is used, or
        what is found in the configuration directory of this user.
    insecure
        Join a hub that runs without keys (`taskmesh hub --insecure`). Nothing is encrypted, and whoever answers there
        sees what you submit. `$TASKMESH_INSECURE=1` says the same.
    workers
        Private mesh only: how many runners; one per core by default.
    initializer, initargs
        `initializer(*initargs)` runs once in each runner before this mesh's first task there. If it raises, tasks
        fail with `InitializerFailed`.
    connect_timeout
        Seconds to wait for a hub to answer.
    window
        Bytes of calls that may be unsettled (256 MiB by default); then `submit` and `map` wait until some have ended.
        A call counts as its pickled arguments and 512 bytes more; so does each group of items that `map` pickles.
    window_timeout
        Seconds that they wait before they raise `WindowFull`; None: as long as it takes.

    Raises
    ------
    HubUnreachable
        No hub answered in time; the message says what was tried.
    RegistrationRefused
        The hub does not want us: it runs another release of taskmesh or Python, has keys where we have none, or no
        longer knows the ticket.
    AddressError
        The address is not one.
    TicketError
        There is no ticket for that hub, or it cannot be used.
    MeshStartError
        The private mesh did not start.
    NestedMeshError
        Called inside a task.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        ticket: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        connect_timeout: float = 10.0,
        window: int = WINDOW,
        window_timeout: float | None = None,
    ) -> None:
        meshes.forbid_in_runner()
        self._shutdown_lock = threading.RLock()  # a signal handler may shut down what its thread is shutting down
        self._private: PrivateHub | None = None
        self._tokens: list[meshes.Token] = []
        self._closed = False
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {type(initializer).__name__}")
        _require_whole("window", window)
        if window_timeout is not None and not window_timeout >= 0:
            raise ValueError(f"window_timeout must be None or seconds from 0 on, not {window_timeout!r}")
        self._window = (window, window_timeout)
        if address is not None and not isinstance(address, str):
            raise TypeError(f"address must be a text like tcp://host:5555, not {address!r}")
        if not connect_timeout >= 0:
            raise ValueError(f"connect_timeout must be seconds from 0 on, not {connect_timeout!r}")
        init = pack_initializer(initializer, initargs)
        if address is None and ticket is None:
            self._client = self._start_private(workers, connect_timeout)
        elif workers is not None:
            raise ValueError("workers= is for a private mesh; a hub's daemons say how many runners they have")
        else:
            from .joining import await_hub

            self._client = self._join(await_hub(address, ticket, insecure, timeout_s=connect_timeout), connect_timeout)
        self._places: Places = Places(self._client, init)
        self._finalizer: weakref.finalize[Any, Mesh] = weakref.finalize(
            self, meshes.dropped, self._client, self._private
        )
        self._finalizer.atexit = False  # `meshes` sees to it
        meshes.opened(self)

    def _start_private(self, workers: int | None, timeout: float) -> Client:
        if workers is not None:
            _require_whole("workers", workers)
        self._max_workers = workers or default_workers()
        self.address = "private"
        self._private = PrivateHub(self._max_workers)
        client: Client | None = None
        try:
            from .client import Client

            client = Client(self._private.control, _session_name(), self._private, None, *self._window)
            self._private.wait_ready()
            client.start(max(timeout, PRIVATE_TIMEOUT_S))
        except BaseException:
            if client is not None:
                client.close()
            self._private.close()
            raise
        return client

    def _join(self, hub: HubChoice, timeout: float) -> Client:
        from .client import LOST_AFTER_S, Client
        from .transport.diagnosis import diagnose

        address = hub.address
        self._max_workers = default_workers()  # what others size their batches by; the hub's daemons come and go
        self.address = str(address)
        client = Client(address.control, _session_name(), None, LOST_AFTER_S, *self._window, hub.credentials)
        try:
            client.start(timeout)
        except HubUnreachable as error:
            client.close()
            if type(error) is HubUnreachable:
                raise HubUnreachable(f"{error}: {diagnose(address)}") from None
            raise
        except BaseException:
            client.close()
            raise
        return client

    # ---- submitting -----------------------------------------------------------------------------------------

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submit one call.

        Parameters
        ----------
        fn
            A task, or any callable: function, lambda, closure, partial, bound method, class, object with `__call__`.
            A function travels once, as it is at its first submit; `self` of a method, the arguments of a partial and
            callable objects travel with each call.
        *args, **kwargs
            Its arguments, pickled now: what is changed later does not matter.

        Returns
        -------
        Future

        Raises
        ------
        TypeError
            `fn` cannot be called.
        PayloadError
            The function or an argument cannot be pickled.
        MeshClosed
            (a `RuntimeError`) After `shutdown`.
        WindowFull
            (a `TimeoutError`) Too much is unsettled: within `window_timeout`, or at once in the thread of an event
            loop, which must not be blocked.
        """
        known = self._places.known.get(id(fn))
        if known is None or known[0]() is not fn:
            function, args, kwargs = unwrap(fn, args, kwargs)  # type: ignore[assignment]
            place = self._places.of(function, fn)
        else:
            place = known[1]
        return self._client.submitter.submit(place, dump_call(args, kwargs, place.spec.name))

    def map(
        self,
        fn: Callable[..., R],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """Call `fn` with each item of `iterables` (until the shortest ends); results in order, lazily.

        Parameters
        ----------
        fn
            As in `submit`.
        iterables
            Consumed at once, unless `buffersize` is given.
        timeout
            Seconds from now in which each result has to come.
        chunksize
            Hand out items in multiples of this many. Not needed: chunks are cut by measured time.
        buffersize
            Take at most this many items ahead of what was consumed, so that the iterables may be infinite.

        Returns
        -------
        Iterator
            If it is abandoned, or a call raises, what has not started is cancelled. Items that were pickled together
            share identity.

        Raises
        ------
        TypeError
            There is no iterable, or what should be one is none.
        ValueError
            `chunksize` or `buffersize` is no whole number from 1 on.
        PayloadError
            The function or an item cannot be pickled.
        MeshClosed, WindowFull
            As from `submit`; with `buffersize` from the iterator as well.
        TimeoutError
            From the iterator: a result did not come in time.
        """
        for name, value in (("chunksize", chunksize), ("buffersize", buffersize)):
            if value is not None:
                _require_whole(name, value)
        if not iterables:
            raise TypeError("map needs at least one iterable")
        from .core.chunking import Chunking
        from .mapping import MapRun
        from .source import Columns, Source

        columns, chunking = Columns(iterables), Chunking(chunksize, buffersize, self._max_workers)
        plain = isinstance(fn, Task | types.FunctionType | types.BuiltinFunctionType | type)
        place = self._places.of(fn, fn) if plain else self._places.make(fn, fn)
        deadline = None if timeout is None else monotonic() + timeout
        run = MapRun(self._client, place, Source(columns, chunking, place.name), buffersize, deadline)
        if not plain:  # as long as the run can still send, or something of it is out
            weakref.finalize(run, self._client.retire, place).atexit = False
        try:
            run.feed()
        except BaseException:
            run.drop()
            raise
        batches = _keep(run.batches(), fn, self if buffersize is not None else None)
        weakref.finalize(batches, run.drop).atexit = False  # one that was never asked for anything drops nothing itself
        return chain.from_iterable(batches)

    def cancel(self, futures: Future[Any] | Iterable[Future[Any]], *, interrupt: bool = False) -> int:
        """Cancel tasks that have not started, and with `interrupt` those that run.

        Waits up to a second for the hub's word, but not in a callback or in the thread of an event loop.

        Parameters
        ----------
        futures
            One or many, of this mesh.
        interrupt
            Running tasks are interrupted as well: `TaskInterrupted` is raised in them, and one that does not end soon
            after is ended with its runner. Their futures are cancelled when they have ended, which may be after the
            return.

        Returns
        -------
        int
            How many of them are cancelled by now.

        Raises
        ------
        TypeError, ValueError
            Something else than a future of this mesh.
        """
        chosen = [futures] if isinstance(futures, concurrent.futures.Future) else list(futures)
        for future in chosen:
            if not isinstance(future, Future):
                raise TypeError(f"cancel takes futures of this mesh, not {type(future).__name__}")
            if not isinstance(future._place, Place) or future._place.client is not self._client:
                raise ValueError(f"task {future.id} of {future._place.name} belongs to another mesh")
        self._client.cancel(chosen, interrupt)
        return sum(future.cancelled() for future in chosen)

    # ---- the end --------------------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the mesh: no more submits; what is pending is finished first.

        Parameters
        ----------
        wait
            Return when everything has ended. Otherwise that happens in the background.
        cancel_futures
            Cancel what has not started.

        Raises
        ------
        RuntimeError
            With `wait`, in a callback of one of this mesh's futures: it would wait for itself.
        """
        client = self._client
        if wait and client.in_receive_thread():
            raise RuntimeError("a callback cannot wait for the end of its own mesh; use shutdown(wait=False)")
        if cancel_futures:
            client.cancel_all()
        if not wait:
            client.stop_taking()
            if not self._closed:
                threading.Thread(target=self.shutdown, name="taskmesh-shutdown").start()
            return
        with self._shutdown_lock:  # among those who wait: whoever does not is not held up by them
            if not self._closed:
                client.wait_ended()
            if not self._closed:
                self._close()

    def _close(self) -> None:
        """End the mesh at once: what has not ended is cancelled."""
        self._closed = True
        self._finalizer.detach()
        self._client.close()
        if self._private is not None:
            self._private.close()
        meshes.closed(self)

    def _abandon(self) -> None:
        """In a fork: the mesh is the parent's, which still uses it."""
        self._closed = True
        self._finalizer.detach()
        self._client.abandon()
        if self._private is not None:
            self._private.abandon()

    def _in_callback(self) -> bool:
        """Whether the caller is a callback of one of this mesh's futures."""
        return self._client.in_receive_thread()

    def __enter__(self) -> Mesh:
        self._tokens.append(meshes.enter(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> bool | None:
        self._leave()
        try:
            # Ctrl-C means stop: what has not started is not started any more.
            self.shutdown(cancel_futures=kind is not None and issubclass(kind, KeyboardInterrupt))
        except KeyboardInterrupt:
            self._close()
            raise
        return None

    def _leave(self) -> None:
        if self._tokens:
            meshes.leave(self, self._tokens.pop())

    async def __aenter__(self) -> Mesh:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """As `__exit__`, in a thread, so that the event loop goes on. Whoever is cancelled cancels what waits."""
        import asyncio

        self._leave()
        stop = kind is not None and issubclass(kind, KeyboardInterrupt | asyncio.CancelledError)
        await asyncio.to_thread(self.shutdown, cancel_futures=stop)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        where = f"private, {self._max_workers} runners" if self._private else self.address
        return f"<Mesh {where}: {state}>"


def _require_whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number from 1 on, not {value!r}")


def _keep(batches: Iterator[list[Any]], *needed: object) -> Iterator[list[Any]]:
    """`batches`, and whatever they need alive as long as they are."""
    yield from batches
    del needed


def _session_name() -> str:
    name = Path(sys.argv[0]).name if sys.argv else ""
    return name.encode("utf-8", "replace").decode() or "python"  # a file's name may hold bytes that are no text
