"""Functions of a runner: pickled by digest, loaded at their first use; and initializers, which run once each."""

from __future__ import annotations

import dis
from collections.abc import Callable
from functools import partial
from typing import Any

from taskmesh.errors import InitializerFailed
from taskmesh.task import plain_function
from taskmesh.wire.payload import describe, loads, unpickling_error
from taskmesh.wire.pipe import Dose


class Functions:
    """What a runner can call.

    Parameters
    ----------
    host
        What this machine is called, for error messages.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._bodies: dict[bytes, bytes] = {}
        self._functions: dict[bytes, Callable[..., Any] | BaseException] = {}
        self._initialised: dict[bytes, BaseException | None] = {}
        self._assigned: dict[bytes, tuple[str | None, dict[str, Any]]] = {}  # by initializer: module, globals

    def put(self, digest: bytes, body: bytes) -> None:
        """The daemon sent a function."""
        self._bodies[digest] = body

    def drop(self, digest: bytes) -> None:
        """The daemon has dropped a function: it sends it again before a dose needs it."""
        self._bodies.pop(digest, None)
        self._functions.pop(digest, None)

    def of(self, dose: Dose) -> Callable[..., Any] | BaseException:
        """The function of a dose, or why there is none: then every task of the dose fails with that."""
        function = self._load(dose.digest, f"the function {dose.name}")
        if dose.init and not isinstance(function, BaseException):
            failure = self._initialise(dose.init)
            if failure is not None:
                return failure
            self._share_globals(dose.init, function)
        return function

    def _load(self, digest: bytes, what: str) -> Callable[..., Any] | BaseException:
        known = self._functions.get(digest)
        if known is None:
            try:
                known = plain_function(loads(self._bodies[digest]))
            except BaseException as error:
                known = unpickling_error(error, what, self._host)
                known.__cause__ = error
                if isinstance(error, ModuleNotFoundError):
                    return known  # it may be installed while we run
            self._functions[digest] = known
        return known

    def _initialise(self, digest: bytes) -> BaseException | None:
        if digest not in self._initialised:
            failure: BaseException | None = None
            initializer = self._load(digest, "the initializer")
            try:
                if isinstance(initializer, BaseException):
                    raise initializer
                initializer()
                self._note_globals(digest, initializer)
            except BaseException as error:
                type_name, text = describe(error)
                failure = InitializerFailed(f"the initializer raised {type_name} on {self._host}: {text}")
                failure.__cause__ = error
            self._initialised[digest] = failure
        return self._initialised[digest]

    def _note_globals(self, digest: bytes, initializer: Callable[..., Any]) -> None:
        """Keep what an initializer has assigned to globals: see `_share_globals`."""
        function = initializer.func if isinstance(initializer, partial) else initializer
        code, scope = getattr(function, "__code__", None), getattr(function, "__globals__", {})
        names = {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_GLOBAL"} if code else set()
        assigned = {name: scope[name] for name in names if name in scope}
        self._assigned[digest] = (getattr(function, "__module__", None), assigned)

    def _share_globals(self, digest: bytes, function: Any) -> None:
        """Let a function that travelled by value see the globals that the initializer of its mesh has set.

        Such a function has globals of its own, filled with what it refers to; `global pool; pool = ...` in an
        initializer would be for nothing otherwise. Functions of real modules share their globals anyway.
        """
        module, assigned = self._assigned[digest]
        scope = getattr(function, "__globals__", None)
        if assigned and scope is not None and function.__module__ == module:
            scope.update(assigned)
