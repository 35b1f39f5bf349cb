"""Places: which function a call is of. One is made at the first use of a function, and gone after the last.

A function is known by its identity: it travels once, as it was then. Places refer to it weakly, so that what nobody can
call any more is retired at the hub as well.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any

from .callables import ByObject, unwrap
from .core.identity import digest_of
from .task import Task, TaskOptions, call_object, task_name
from .wire.payload import dump_body

if TYPE_CHECKING:
    from .arrivals import Spec
    from .client import Client
    from .futures import Future


class Place:
    """Where the futures of one spec are: see `futures.Place`."""

    __slots__ = ("_client", "spec")

    def __init__(self, client: Client, spec: Spec) -> None:
        self._client = client
        self.spec = spec

    @property
    def session(self) -> int:
        """The session's id."""
        return self._client.instance

    @property
    def number(self) -> int:
        """The spec's number."""
        return self.spec.number

    @property
    def name(self) -> str:
        """What the tasks are called."""
        return self.spec.name

    def flush(self) -> None:
        """Send what is still being gathered of this function."""
        self._client.submitter.flush(self.spec)

    def before_waiting(self) -> None:
        """Send what is still being gathered of this function, or raise if nothing could ever come."""
        self._client.before_waiting(self.spec)

    def cancel(self, future: Future[Any]) -> bool:
        """Cancel one task if it certainly has not started."""
        self._client.cancel([future], interrupt=False)
        return future.cancelled()

    @property
    def client(self) -> Client:
        """The session."""
        return self._client


class Places:
    """The places of one mesh. Attribute `known`: by id of a function, a reference that gives it, and its place.

    Parameters
    ----------
    client
        The session. (Not the mesh: that is dropped when nobody refers to it, and we are referred to by functions.)
    init
        Digest and body of the initializer, or None.
    """

    def __init__(self, client: Client, init: tuple[bytes, bytes] | None) -> None:
        self._client = client
        self._init = init
        self.known: dict[int, tuple[Any, Place]] = {}

    def of(self, function: Any, fn: Any) -> Place:
        """The place of `function`, made at its first use and forgotten after its last.

        Parameters
        ----------
        function
            What travels.
        fn
            What the user has named: calls are called after it.
        """
        key = id(function)
        known = self.known.get(key)
        if known is not None and known[0]() is function:
            return known[1]
        place = self.make(function, fn)
        try:
            reference: Any = weakref.ref(function, functools.partial(_forget, weakref.ref(self), key))
        except TypeError:  # cannot be referred to weakly: keep it
            reference = functools.partial(_identity, function)
        self.known[key] = (reference, place)
        return place

    def make(self, function: Any, fn: Any) -> Place:
        """A place of its own, which whoever asked for it has to retire."""
        called = unwrap(fn, (), {})[0]
        options = called.task_options if isinstance(called, Task) else TaskOptions()
        shown = function if isinstance(function, Task) else fn
        name = task_name(getattr(shown, "func", shown), options)
        body = dump_body(call_object if isinstance(function, ByObject) else function, name)
        return self._client.define(name, body, digest_of(body), self._init, options.priority, options.limits)

    def forget(self, key: int, reference: object) -> None:
        """A function was collected: its spec can go. Runs as a finalizer, so it only takes a note."""
        known = self.known.get(key)
        if known is not None and known[0] is reference:
            del self.known[key]
            self._client.retire(known[1])


def _identity(value: Any) -> Any:
    return value


def _forget(places: weakref.ref[Places], key: int, reference: object) -> None:
    owner = places()
    if owner is not None:
        owner.forget(key, reference)
