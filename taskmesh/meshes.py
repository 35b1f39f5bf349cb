"""The meshes of this process: which one is meant where none is named, and how all end with it or in a fork."""

from __future__ import annotations

import atexit
import contextvars
import os
import threading
import weakref
from typing import TYPE_CHECKING

from .errors import NestedMeshError
from .task import in_runner

if TYPE_CHECKING:
    from .client import Client
    from .launch import PrivateHub
    from .mesh import Mesh

Token = contextvars.Token[tuple["Mesh", ...]]

_entered: contextvars.ContextVar[tuple[Mesh, ...]] = contextvars.ContextVar("taskmesh_entered", default=())
_blocks: list[tuple[int, Mesh]] = []  # of all threads, by their identifiers
_open: weakref.WeakSet[Mesh] = weakref.WeakSet()
_dropped: set[tuple[Client, PrivateHub | None]] = set()  # of meshes that nobody refers to; they finish their work
_default: Mesh | None = None
_default_lock = threading.RLock()


def current_mesh() -> Mesh:
    """The mesh of the innermost `with`, else that of `$TASKMESH_HUB` or `$TASKMESH_TICKET`, else a private one.

    In a callback of a future: the mesh that calls it. In a thread without a block of its own: the mesh whose block
    another thread is in, if there is one such mesh. What is made here is kept until the interpreter exits.

    Returns
    -------
    Mesh
        One that is open, except within the block of one that was shut down.

    Raises
    ------
    HubUnreachable
        `$TASKMESH_HUB` or `$TASKMESH_TICKET` names a hub that does not answer.
    RegistrationRefused, AddressError, TicketError
        That hub does not want us; or what the variables say is no address, or no ticket that can be used.
    MeshStartError
        The private mesh did not start.
    NestedMeshError
        Called inside a task.
    """
    global _default
    entered = _entered.get()
    if entered:
        return entered[-1]
    forbid_in_runner()
    for mesh in _all_open():
        if mesh._in_callback():
            return mesh
    elsewhere = {mesh for thread, mesh in list(_blocks) if thread != threading.get_ident()}
    if len(elsewhere) == 1:  # threads do not inherit the context of whoever starts them
        return elsewhere.pop()
    from .mesh import Mesh

    if _default_lock._is_owned():  # type: ignore[attr-defined]  # as threading.Condition asks it
        raise RuntimeError("a signal handler or finalizer has interrupted the making of the mesh that it asks for")
    with _default_lock:
        if _default is None or _default._closed:
            named = os.environ.get("TASKMESH_HUB") or None
            _default = Mesh(named, ticket=None if named else os.environ.get("TASKMESH_TICKET") or None)
        return _default


def forbid_in_runner() -> None:
    """Refuse to make a mesh inside a task.

    Raises
    ------
    NestedMeshError
        This is one.
    """
    if in_runner():
        raise NestedMeshError()


# ---- blocks ---------------------------------------------------------------------------------------------------------


def enter(mesh: Mesh) -> Token:
    """A `with` block of `mesh` begins."""
    _blocks.append((threading.get_ident(), mesh))
    return _entered.set((*_entered.get(), mesh))


def leave(mesh: Mesh, token: Token) -> None:
    """It ends: what `enter` gave for it."""
    for block in reversed(_blocks):
        if block[1] is mesh:
            _blocks.remove(block)
            break
    try:
        _entered.reset(token)
    except ValueError:  # left in another context than it was entered in
        _entered.set(tuple(entered for entered in _entered.get() if entered is not mesh))


# ---- ends -----------------------------------------------------------------------------------------------------------


def opened(mesh: Mesh) -> None:
    """It has to be ended before the interpreter exits."""
    _open.add(mesh)


def closed(mesh: Mesh) -> None:
    """It was."""
    _open.discard(mesh)


def dropped(client: Client, private: PrivateHub | None) -> None:
    """Nobody refers to a mesh any more: it finishes what is pending, and the interpreter waits for that."""
    _dropped.add((client, private))
    threading.Thread(target=_finish, args=(client, private), name="taskmesh-finish").start()


def _finish(client: Client, private: PrivateHub | None) -> None:
    client.wait_ended()
    client.close()
    if private is not None:
        private.close()
    _dropped.discard((client, private))


def _all_open() -> list[Mesh]:
    while True:
        try:
            return list(_open)
        except RuntimeError:  # another thread has just made one
            continue


@atexit.register
def _close_all() -> None:
    """The interpreter exits: finish what is pending, as ProcessPoolExecutor does."""
    for mesh in _all_open():
        try:
            mesh.shutdown()
        except KeyboardInterrupt:
            mesh._close()


def _after_fork() -> None:
    """A forked child has none of its parent's meshes: it must neither use nor end them."""
    global _default, _default_lock
    for mesh in list(_open):
        mesh._abandon()
    for client, private in _dropped:
        client.abandon()
        if private is not None:
            private.abandon()
    _open.clear()
    _blocks.clear()
    _dropped.clear()
    _default = None
    _default_lock = threading.RLock()
    _entered.set(())


os.register_at_fork(after_in_child=_after_fork)
