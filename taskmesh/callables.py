"""What users submit: tasks, functions and whatever else can be called, as function and arguments."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

from .core.identity import digest_of
from .task import BoundTask, Task, task_name
from .wire.payload import dump_body


class ByObject:
    """Stands for a type whose objects are called: its spec is `call_object`."""

    def __init__(self, cls: type) -> None:
        self.__qualname__ = cls.__qualname__


_by_object: Callable[[type], ByObject] = functools.cache(ByObject)


def unwrap(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The function that a call is of, and its full arguments: partials and methods are taken apart."""
    while True:
        if isinstance(fn, functools.partial) and type(fn) is functools.partial:
            args, kwargs, fn = (*fn.args, *args), {**fn.keywords, **kwargs}, fn.func
        elif isinstance(fn, types.MethodType) and isinstance(fn.__func__, types.FunctionType | Task):
            args, fn = (fn.__self__, *args), fn.__func__
        elif isinstance(fn, BoundTask):
            args, fn = (fn.__self__, *args), fn.task
        else:
            break
    if isinstance(fn, Task | types.FunctionType | type):
        return fn, args, kwargs
    if isinstance(fn, types.BuiltinFunctionType) and (fn.__self__ is None or isinstance(fn.__self__, types.ModuleType)):
        return fn, args, kwargs
    if not callable(fn):
        raise TypeError(f"cannot submit {fn!r}: it is not callable")
    return _by_object(type(fn)), (fn, *args), kwargs


def pack_initializer(
    initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> tuple[bytes, bytes] | None:
    """Digest and body of an initializer with its arguments.

    Raises
    ------
    PayloadError
        It cannot be pickled.
    """
    if initializer is None:
        return None
    plain = initializer.function if isinstance(initializer, Task) else initializer
    body = dump_body(functools.partial(plain, *initargs), f"the initializer {task_name(plain)}")
    return digest_of(body), body
