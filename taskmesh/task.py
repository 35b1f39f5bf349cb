"""Tasks as a user writes them: the decorator, its options, and what a task can learn about itself."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar, overload

from .core.messages import Limits
from .sizes import parse_size

if TYPE_CHECKING:
    from inspect import Signature

    from .futures import Future

P = ParamSpec("P")
R = TypeVar("R")


class TaskInfo(NamedTuple):
    """What a running task can know of itself.

    Attributes: `id` (session, function and number of the task, as text), `attempt` (1 for the first), `name` (of the
    function), `host` (name of the machine it runs on).
    """

    id: str
    attempt: int
    name: str
    host: str


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What can be said of a function's tasks.

    Attributes
    ----------
    name : str or None
        What the tasks are called in `repr`, logs and errors; the function's qualified name by default.
    priority : int
        Waiting tasks of a higher priority start first; 0 by default, from -1000 to 1000.
    timeout : float or None
        Seconds that a task may run; waiting does not count. Then `TaskTimeout` is raised inside it, and if it has not
        ended after a grace period of at most 2 s, its runner is ended. None: for ever.
    memory : int or str or None
        How much memory its runner may have while it runs, in bytes or like "2GiB"; above it, the task fails with
        `MemoryLimitExceeded`. None: what the worker allows.
    at_most_once : bool
        Never start a task twice: where it may have started and its worker is lost, it fails with `WorkerLost`.
    """

    name: str | None = None
    priority: int = 0
    timeout: float | None = None
    memory: int | str | None = None
    at_most_once: bool = False

    def __post_init__(self) -> None:
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise TypeError(f"name must be a non-empty string, not {self.name!r}")
        if not isinstance(self.priority, int) or isinstance(self.priority, bool):
            raise TypeError(f"priority must be an integer, not {self.priority!r}")
        if not -1000 <= self.priority <= 1000:
            raise ValueError(f"priority must be between -1000 and 1000, not {self.priority}")
        if self.timeout is not None:
            if isinstance(self.timeout, bool) or not isinstance(self.timeout, int | float):
                raise TypeError(f"timeout must be a number of seconds, not {self.timeout!r}")
            if not (self.timeout > 0 and isfinite(self.timeout)):
                raise ValueError(f"timeout must be above 0 seconds, not {self.timeout}")
        if self.memory is not None:
            if isinstance(self.memory, bool) or not isinstance(self.memory, int | str):
                raise TypeError(f"memory must be bytes or a text like '2GiB', not {self.memory!r}")
            parse_size(self.memory)
        if not isinstance(self.at_most_once, bool):
            raise TypeError(f"at_most_once must be True or False, not {self.at_most_once!r}")

    @property
    def limits(self) -> Limits:
        """What each task may take, as it travels."""
        memory = parse_size(self.memory) if self.memory is not None else 0
        return Limits(float(self.timeout or 0.0), memory, self.at_most_once)


def _options(base: TaskOptions, given: dict[str, Any]) -> TaskOptions:
    known = [field.name for field in fields(TaskOptions)]
    for option in given:
        if option not in known:
            import difflib

            near = difflib.get_close_matches(option, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}"
            raise TypeError(f"unknown task option {option!r}{hint}")
    return replace(base, **given)


class Task(Generic[P, R]):
    """A function that can be submitted. Calling it runs it here, as before.

    Made by `task`; `options` makes another one with other options.
    """

    __name__: str  # these come from the function
    __qualname__: str
    __wrapped__: Callable[P, R]

    def __init__(self, function: Callable[P, R], options: TaskOptions) -> None:
        self.function = function
        self.task_options = options
        functools.update_wrapper(self, function)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """As a method: bound to its object, and still a task. What Python does not bind is not bound here either."""
        function = self.function
        if instance is None or isinstance(function, staticmethod) or not hasattr(type(function), "__get__"):
            return self
        return BoundTask(self, instance)

    def __repr__(self) -> str:
        return f"<task {task_name(self.function, self.task_options)}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        """By name where the other side can import it; else by value, as cloudpickle does with plain functions."""
        from .wire.payload import importable_name

        return importable_name(self) or (_rebuild_task, (self.function, self.task_options))

    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submit one call to the current mesh: see `taskmesh.current_mesh`.

        Returns
        -------
        Future
            Of what the call returns.

        Raises
        ------
        PayloadError, WindowFull, MeshClosed
            As of `Mesh.submit`.
        HubUnreachable, TicketError, MeshStartError, NestedMeshError
            As of `current_mesh`.
        """
        from .meshes import current_mesh

        return current_mesh().submit(self, *args, **kwargs)

    def map(
        self,
        *iterables: Any,
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[R]:
        """Submit one call for each item (or each tuple of items) to the current mesh: see `taskmesh.current_mesh`.

        Parameters
        ----------
        iterables, timeout, chunksize, buffersize
            As of `Mesh.map`.

        Returns
        -------
        Iterator
            The results, in order, lazily.

        Raises
        ------
        PayloadError, WindowFull, MeshClosed, TypeError, ValueError
            As of `Mesh.map`.
        HubUnreachable, TicketError, MeshStartError, NestedMeshError
            As of `current_mesh`.
        """
        from .meshes import current_mesh

        results: Iterator[R] = current_mesh().map(
            self, *iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize
        )
        return results

    def options(self, **options: Any) -> Task[P, R]:
        """The same function with other options (see `TaskOptions`); those not named stay as they are.

        Raises
        ------
        TypeError
            There is no such option, or its value is of the wrong type.
        """
        return Task(self.function, _options(self.task_options, options))


class BoundTask:
    """A task that is a method, of one object, which is its first argument wherever it runs.

    Parameters
    ----------
    task
        The task.
    instance
        The object.
    """

    def __init__(self, task: Task[..., Any], instance: object) -> None:
        self.task = task
        self.__self__ = instance
        self.__func__ = task.function
        self.__doc__ = task.__doc__

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.task.function(self.__self__, *args, **kwargs)

    @property
    def __signature__(self) -> Signature:
        """That of the function, without its first parameter."""
        import inspect

        return inspect.signature(types.MethodType(self.__func__, self.__self__))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task.function, name)  # __name__, __doc__, __wrapped__ …, as methods do it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoundTask) and self.task is other.task and self.__self__ is other.__self__

    def __hash__(self) -> int:
        return hash((id(self.task), id(self.__self__)))

    def __repr__(self) -> str:
        return f"<{self.task!r}, bound to {self.__self__!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return BoundTask, (self.task, self.__self__)

    def submit(self, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit one call to the current mesh: see `Task.submit`."""
        return self.task.submit(self.__self__, *args, **kwargs)

    def map(self, *iterables: Any, **options: Any) -> Iterator[Any]:
        """Submit one call for each item to the current mesh: see `Task.map`."""
        from .meshes import current_mesh

        return current_mesh().map(self, *iterables, **options)

    def options(self, **options: Any) -> BoundTask:
        """The same method with other options: see `Task.options`."""
        return BoundTask(self.task.options(**options), self.__self__)


def _rebuild_task(function: Callable[..., Any], options: TaskOptions) -> Task[..., Any]:
    return Task(function, options)


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    priority: int = 0,
    timeout: float | None = None,
    memory: int | str | None = None,
    at_most_once: bool = False,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task: `@task`, or `@task(name="…", priority=…)`.

    The function still runs here when it is called, and keeps its signature, docstring and types; it gains `submit`,
    `map` and `options`.

    Parameters
    ----------
    function
        What to decorate.
    **options
        See `TaskOptions`.

    Raises
    ------
    TypeError
        An option does not exist (the nearest one is suggested) or has a value of the wrong type.
    """
    checked = _options(TaskOptions(), options)

    def decorate(decorated: Callable[..., Any]) -> Task[..., Any]:
        if not callable(decorated):
            what = type(decorated).__name__
            raise TypeError(f"@task decorates functions, not {what}; options go by name: @task(name=…)")
        return Task(decorated, checked)

    return decorate if function is None else decorate(function)


def task_name(function: Any, options: TaskOptions | None = None) -> str:
    """What a function's tasks are called."""
    if options is not None and options.name:
        return options.name
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__qualname__


def plain_function(loaded: Any) -> Callable[..., Any]:
    """What a runner calls: a task's own function, so that nothing stands between."""
    function: Callable[..., Any] = loaded.function if isinstance(loaded, Task) else loaded
    return function


def call_object(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """What stands for callables that are no plain functions: they travel as the first argument."""
    return function(*args, **kwargs)


# ---- inside a runner ------------------------------------------------------------------------------------------------

_current: Callable[[], TaskInfo | None] | None = None


def enter_runner(current: Callable[[], TaskInfo | None]) -> None:
    """This process is a runner from now on; `current` tells which task runs."""
    global _current
    _current = current


def in_runner() -> bool:
    """Whether this process is a runner."""
    return _current is not None


def current_task() -> TaskInfo | None:
    """What the running task knows of itself: id, attempt, name and host. Outside a task: `None`."""
    return _current() if _current is not None else None
