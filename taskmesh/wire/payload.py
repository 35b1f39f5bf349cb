"""Pickles: the only file of the project that makes and opens them, used by clients and runners, never by hub or daemon.

`pickle` where it suffices, `cloudpickle` where it does not. `pickle` stores what lives in `__main__` by a name that
no other process has, so a payload in which `__main__` occurs is pickled again by cloudpickle, which sends it by value.

A leaf of a call is a pickled tuple of arguments, or a list `[args, kwargs]`; a leaf of items is a pickled list or range
(one iterable), or a tuple of those (several, one column each).
"""

from __future__ import annotations

import functools
import io
import sys
import traceback
from collections import ChainMap
from collections.abc import Callable, Collection, Mapping, Sequence
from pickle import dumps as _dumps
from pickle import loads
from typing import Any, ClassVar

from ..core.chunk import pack_sizes, unpack_sizes
from ..errors import ModuleMissing, PayloadError, RemoteError, RemoteTraceback

__all__ = [
    "ATOMS",
    "by_value_modules",
    "describe",
    "dump",
    "dump_body",
    "dump_call",
    "dump_each",
    "dump_error",
    "importable_name",
    "load_each",
    "load_error",
    "loads",
    "unpickling_error",
]  # fmt: skip

ATOMS = frozenset({type(None), bool, int, float, str, bytes, complex})
"""Types whose values nobody can change afterwards: their results may be pickled later, many at a time."""

LEAF_LIMIT = 1 << 32
"""Bytes of the arguments of one call: their size travels as 32 bits."""

_MAIN = b"__main__"


def dump(value: object) -> bytes:
    """Pickle any value.

    Raises
    ------
    Exception
        Whatever the value's own pickling raises.
    """
    try:
        data = _dumps(value, 5)
    except Exception:  # a user's object: only cloudpickle's verdict on it counts
        return _cloud(value)
    return _cloud(value) if _MAIN in data or by_value_modules() else data


def by_value_modules() -> Collection[str]:
    """The modules that the user has told cloudpickle to send by value: `cloudpickle.register_pickle_by_value`."""
    loaded = sys.modules.get("cloudpickle.cloudpickle")
    return getattr(loaded, "_PICKLE_BY_VALUE_MODULES", ())  # its public function copies the set, for every task


def _cloud(value: object) -> bytes:
    buffer = io.BytesIO()
    _pickler()(buffer, protocol=5).dump(value)
    return buffer.getvalue()


@functools.cache
def _pickler() -> Any:
    """cloudpickle's, and it can also pickle a cached function by value: its function, and an empty cache."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        dispatch_table: ClassVar[Any] = ChainMap({_Cached: _reduce_cached}, cloudpickle.Pickler.dispatch_table)

    return Pickler


_Cached = type(functools.cache(len))


def _reduce_cached(cached: Any) -> str | tuple[Any, ...]:
    return importable_name(cached) or (_rebuild_cached, (cached.__wrapped__, cached.cache_parameters()))


def importable_name(value: Any) -> str | None:
    """By which name the other side finds `value` in its module; None: it has to travel by value."""
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    name: str = getattr(value, "__qualname__", "")
    if module is None or _goes_by_value(module.__name__):
        return None
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return name if found is value else None


def _goes_by_value(module: str) -> bool:
    by_value = by_value_modules()
    return module == "__main__" or any(module == name or module.startswith(f"{name}.") for name in by_value)


def _rebuild_cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def dump_call(args: tuple[object, ...], kwargs: Mapping[str, object], name: str) -> bytes:
    """The leaf of one call.

    Raises
    ------
    PayloadError
        An argument cannot be pickled, or they are too large.
    """
    try:
        leaf = dump([args, kwargs] if kwargs else args)
    except Exception as error:
        raise PayloadError(f"cannot pickle the arguments of {name}: {type(error).__name__}: {error}") from error
    if len(leaf) >= LEAF_LIMIT:
        raise PayloadError(f"the arguments of {name} have {len(leaf):,} bytes, and the limit is {LEAF_LIMIT:,}")
    return leaf


def dump_body(function: Callable[..., object], name: str) -> bytes:
    """A function as it travels: by reference where the other side can import it, else by value.

    Raises
    ------
    PayloadError
        It refers to something that cannot be pickled.
    """
    try:
        return dump(function)
    except Exception as error:
        raise PayloadError(f"cannot pickle {name}: {type(error).__name__}: {error}") from error


def dump_each(pickles: Sequence[bytes]) -> bytes:
    """Several pickles as one blob of form `EACH`."""
    return b"".join((pack_sizes([len(pickles)]), pack_sizes([len(p) for p in pickles]), *pickles))


def load_each(blob: bytes) -> list[memoryview]:
    """The pickles in a blob of form `EACH`, unopened."""
    (count,) = unpack_sizes(blob[:4])
    start, view, pickles = 4 + 4 * count, memoryview(blob), []
    for size in unpack_sizes(blob[4:start]):
        pickles.append(view[start : start + size])
        start += size
    return pickles


# ---- errors ---------------------------------------------------------------------------------------------------------


def describe(error: BaseException) -> tuple[str, str]:
    """Qualified type name and text of `error`, whatever its `__str__` does."""
    cls = type(error)
    prefix = "" if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}."
    try:
        text = str(error)
    except BaseException as broken:  # a user's __str__
        text = f"<its __str__ raised {type(broken).__name__}>"
    return f"{prefix}{cls.__qualname__}", text


def dump_error(error: BaseException, skip_frames: int = 0) -> bytes:
    """An exception as it travels: strings that always arrive, and its pickle where it has one.

    Parameters
    ----------
    error
        What the task raised.
    skip_frames
        How many of the outermost frames of its traceback are the runner's own, and to be left out.
    """
    trace = error.__traceback__
    for _ in range(skip_frames):
        trace = trace.tb_next if trace is not None and trace.tb_next is not None else trace
    type_name, text = describe(error)
    try:
        printed = "".join(traceback.format_exception(type(error), error, trace))
    except BaseException as broken:  # a user's __str__, __repr__ or __cause__
        printed = f"{type_name}: {text} (its traceback cannot be printed: {type(broken).__name__})\n"
    try:
        pickled: bytes | None = dump(error)
    except BaseException:  # a user's exception; it arrives as RemoteError
        pickled = None
    clean = [part.encode("utf-8", "backslashreplace").decode() for part in (type_name, text, printed)]
    return _dumps((*clean, pickled), 5)


def load_error(blob: bytes) -> BaseException:
    """The exception in `blob`, with the remote traceback as its cause."""
    type_name, text, printed, pickled = loads(blob)
    error: object = None
    if pickled is not None:
        try:
            error = loads(pickled)
        except (Exception, SystemExit):  # e.g. an __init__ that does not take what `args` holds
            error = None
    if not isinstance(error, BaseException):
        error = RemoteError(type_name, text, printed)
    error.__cause__ = RemoteTraceback(printed)
    return error


def unpickling_error(error: BaseException, what: str, host: str) -> PayloadError:
    """What a task fails with when `what` ("the arguments", "the result", …) cannot be unpickled on `host`."""
    type_name, text = describe(error)
    if isinstance(error, ModuleNotFoundError):
        return ModuleMissing(
            f"{host} has no module {error.name!r}, which is needed to unpickle {what}. Install it there, or put it "
            f"on the PYTHONPATH of the worker, or make it travel along with "
            f"cloudpickle.register_pickle_by_value({(error.name or 'module').partition('.')[0]})"
        )
    return PayloadError(f"{what} cannot be unpickled on {host}: {type_name}: {text}")
