"""Whatever can be called can be submitted, with whatever arguments it takes."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from taskmesh import Mesh, PayloadError, Task, TaskTimeout, task

from .tasks import BreaksWhenPickled, Counter, add, double, keywords, sleep


@task
def tripled(x: int) -> int:
    """Three times `x`."""
    return 3 * x


@task(name="nice name", priority=3)
def named(x: int) -> int:
    return x


def test_a_task_still_runs_here() -> None:
    assert tripled(5) == 15
    assert tripled.__name__ == tripled.__qualname__ == "tripled"
    assert tripled.__doc__ == "Three times `x`."
    assert str(inspect.signature(tripled)) == "(x: 'int') -> 'int'"
    assert isinstance(tripled, Task)


@pytest.mark.parametrize("option", ["nmae", "prioritty", "retires"])
def test_an_unknown_option_is_refused_where_it_is_written(option: str) -> None:
    decorate: Any = task
    with pytest.raises(TypeError, match=option):
        decorate(**{option: 3})
    with pytest.raises(TypeError, match=option):
        tripled.options(**{option: 3})


def test_the_nearest_option_is_suggested() -> None:
    decorate: Any = task
    with pytest.raises(TypeError, match="did you mean 'name'"):
        decorate(nmae="x")
    with pytest.raises(TypeError, match="did you mean 'priority'"):
        decorate(priorty=1)


def test_options_of_the_wrong_kind_are_refused() -> None:
    decorate: Any = task
    for options in ({"name": 3}, {"name": ""}, {"priority": "high"}, {"priority": True}):
        with pytest.raises(TypeError):
            decorate(**options)
    with pytest.raises(ValueError, match="1000"):
        decorate(priority=1001)
    with pytest.raises(TypeError, match="by name"):
        decorate("name")


def test_tasks_are_submitted_by_their_own_methods(mesh: Mesh) -> None:
    with_options = tripled.options(name="other", priority=-5)
    assert mesh.submit(tripled, 2).result() == 6
    assert mesh.submit(with_options, 2).result() == 6
    assert "of other:" in repr(mesh.submit(with_options, 2))
    assert "of nice name:" in repr(mesh.submit(named, 2))
    assert list(mesh.map(named, range(5))) == [0, 1, 2, 3, 4]


class Sleeper:
    """Has a task as a method, and one as a class method."""

    def __init__(self, name: str) -> None:
        self.name = name

    @task(timeout=0.2, priority=3)
    def nap(self, seconds: float) -> str:
        """Sleeps."""
        sleep(seconds)
        return self.name

    @classmethod
    @task(timeout=0.2)
    def rest(cls, seconds: float) -> str:
        sleep(seconds)
        return cls.__name__


@pytest.mark.parametrize(
    "bound",
    [
        Sleeper("s").nap,
        functools.partial(Sleeper("s").nap),
        functools.partial(task(timeout=0.2)(sleep)),
        Sleeper.rest,
    ],
    ids=["method", "partial of a method", "partial", "class method"],
)
@pytest.mark.parametrize("how", ["submit", "map"])
def test_a_task_keeps_its_options_however_it_is_bound(mesh: Mesh, bound: Callable[[float], object], how: str) -> None:
    with pytest.raises(TaskTimeout, match=r"its timeout of 0\.2 s"):
        mesh.submit(bound, 20.0).result(20) if how == "submit" else list(mesh.map(bound, [20.0]))
    assert mesh.submit(bound, 0.0).result(20) == bound(0.0)


def test_a_task_may_be_a_method(mesh: Mesh) -> None:
    one, other = Sleeper("one"), Sleeper("other")
    assert one.nap(0.0) == "one"
    assert (one.nap.__name__, one.nap.__doc__) == ("nap", "Sleeps.")
    assert one.nap == one.nap != other.nap
    assert len({one.nap, one.nap, other.nap}) == 2
    assert "Sleeper.nap>, bound to <" in repr(one.nap)
    assert pickle.loads(pickle.dumps(one.nap))(0.0) == "one"
    with mesh_entered(mesh):
        assert one.nap.submit(0.0).result(20) == "one"
        assert list(other.nap.map([0.0, 0.0])) == ["other"] * 2
        assert one.nap.options(name="siesta").submit(0.0).result(20) == "one"


def test_what_python_does_not_bind_is_not_bound_as_a_task() -> None:
    class Tools:
        parse = task(int)

        @task
        @staticmethod
        def double(x: int) -> int:
            return 2 * x

    assert Tools().parse("5") == 5
    assert Tools().double(4) == Tools.double(4) == 8
    assert str(inspect.signature(Sleeper("s").nap)) == "(seconds: 'float') -> 'str'"
    assert Sleeper("s").nap.__func__ is Sleeper.nap.function


def local_functions() -> list[tuple[str, Callable[[int], int]]]:
    """One of each kind; each doubles its argument."""
    offset = 10

    def closure(x: int) -> int:
        return 2 * x + offset - 10

    @task
    def local_task(x: int) -> int:
        return closure(x)

    class Callable_:
        factor = 2

        def __call__(self, x: int) -> int:
            return self.factor * x

        def method(self, x: int) -> int:
            return self.factor * x

        @classmethod
        def of_class(cls, x: int) -> int:
            return cls.factor * x

        @staticmethod
        def of_none(x: int) -> int:
            return 2 * x

    return [
        ("function", double),
        ("lambda", lambda x: 2 * x),
        ("closure", closure),
        ("local task", local_task),
        ("partial", functools.partial(operator.mul, 2)),
        ("partial of a closure", functools.partial(closure)),
        ("partial of a partial", add_twice),
        ("partial of a task", functools.partial(local_task)),
        ("callable object", Callable_()),
        ("bound method", Callable_().method),
        ("partial of a method", functools.partial(Callable_().method)),
        ("class method", Callable_.of_class),
        ("static method", Callable_.of_none),
        ("bound method of a builtin", (2).__mul__),
        ("method of a builtin", {n: 2 * n for n in range(100)}.__getitem__),
        ("cached", functools.lru_cache(lambda x: 2 * x)),
        ("wrapped", functools.wraps(double)(lambda x: 2 * x)),
    ]


def add_twice(x: int) -> int:
    """Twice `x`, by a partial of a partial."""
    return functools.partial(functools.partial(add, x), x)()


@pytest.mark.parametrize(
    ("kind", "function"), local_functions(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_kind_of_callable(mesh: Mesh, kind: str, function: Callable[[int], int]) -> None:
    assert [mesh.submit(function, n).result() for n in range(3)] == [0, 2, 4], kind
    assert list(mesh.map(function, range(50))) == [2 * n for n in range(50)], kind


def test_builtins(mesh: Mesh) -> None:
    assert mesh.submit(pow, 2, 10).result() == 1024
    assert mesh.submit(math.hypot, 3, 4).result() == 5
    assert mesh.submit(sorted, [2, 1], reverse=True).result() == [2, 1]
    assert mesh.submit(dict, a=1).result() == {"a": 1}
    assert mesh.submit(int, "ff", 16).result() == 255
    assert mesh.submit("{} and {b}".format, 1, b=2).result() == "1 and 2"
    assert list(mesh.map(operator.itemgetter(1), ["ab", "cd"])) == ["b", "d"]
    assert list(mesh.map(str.upper, ["ab", "cd"])) == ["AB", "CD"]


def test_keywords_may_have_any_name(mesh: Mesh) -> None:
    names = {"fn": 1, "self": 2, "args": 3, "kwargs": 4, "function": 5, "timeout": 6, "place": 7}
    assert mesh.submit(keywords, **names).result() == names
    assert mesh.submit(functools.partial(keywords, **names)).result() == names
    decorated = task(keywords)
    assert decorated(**names) == names
    with mesh_entered(mesh):
        assert decorated.submit(**names).result() == names

    class Object:
        def __call__(self, /, **given: int) -> dict[str, int]:
            return given

    assert mesh.submit(Object(), **names).result() == names


class mesh_entered:
    """Makes a mesh current without ending it."""

    def __init__(self, mesh: Mesh) -> None:
        from taskmesh import meshes as module

        self._variable, self._mesh = module._entered, mesh

    def __enter__(self) -> None:
        self._token = self._variable.set((self._mesh,))

    def __exit__(self, *_: object) -> None:
        self._variable.reset(self._token)


def test_methods_see_what_changed_in_their_object(mesh: Mesh) -> None:
    counter = Counter(1)
    assert mesh.submit(counter.plus, 1).result() == 2
    counter.count = 10
    assert mesh.submit(counter.plus, 1).result() == 11
    assert mesh.submit(counter).result() == 11
    assert counter.count == 10, "the runner has a copy"
    assert mesh.submit(Counter, 5).result().count == 5


def test_arguments_are_taken_when_they_are_submitted(mesh: Mesh) -> None:
    values = [1, 2, 3]
    future = mesh.submit(sum, values)
    values.append(100)
    assert future.result() == 6


def test_mutable_results_are_not_confused(mesh: Mesh) -> None:
    def factory() -> Callable[[int], list[int]]:
        seen: list[int] = []

        def remember(x: int) -> list[int]:
            seen.append(x)
            return seen

        return remember

    remember = factory()
    results = [future.result() for future in [mesh.submit(remember, n) for n in range(200)]]
    assert [result[-1] for result in results] == list(range(200))
    assert len({id(result) for result in results}) == 200


def test_a_redefined_function_is_another_one(mesh: Mesh) -> None:
    results = []
    for n in range(20):
        scope: dict[str, Any] = {}
        exec(f"def f(): return {n}", scope)
        results.append(mesh.submit(scope["f"]).result())
    assert results == list(range(20))


def test_what_cannot_be_called_or_pickled_fails_in_submit(mesh: Mesh) -> None:
    submit: Any = mesh.submit
    with pytest.raises(TypeError, match="not callable"):
        submit(3)
    with pytest.raises(TypeError):
        submit()
    with pytest.raises(PayloadError, match="broken when pickled"):
        mesh.submit(double, BreaksWhenPickled())  # type: ignore[arg-type]
    broken = BreaksWhenPickled()
    with pytest.raises(PayloadError, match="broken when pickled"):
        mesh.submit(lambda: broken)
    with pytest.raises(PayloadError):
        mesh.submit(lambda: mesh)
    with pytest.raises(PayloadError, match="result"):
        mesh.submit(double, mesh.submit(double, 1))  # type: ignore[arg-type]
    assert mesh.submit(double, 4).result() == 8


def test_recursion_in_the_task_itself(mesh: Mesh) -> None:
    @task
    def factorial(n: int) -> int:
        return 1 if n < 2 else n * int(factorial(n - 1))

    assert mesh.submit(factorial, 10).result() == math.factorial(10)
    assert list(mesh.map(factorial, range(5))) == [1, 1, 2, 6, 24]
