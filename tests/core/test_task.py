"""Tasks as a user writes them."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import TYPE_CHECKING, assert_type

import cloudpickle
import pytest

import taskmesh
from taskmesh import Task, current_task, task
from taskmesh.task import TaskInfo, TaskOptions, call_object, plain_function, task_name
from taskmesh.wire.payload import dump, loads

if TYPE_CHECKING:
    from taskmesh import Future


@task
def double(x: int, *, times: int = 2) -> int:
    """Twice as much."""
    return x * times


@task(name="other", priority=3)
def named(x: int) -> str:
    return str(x)


class Shop:
    def __init__(self, price: int) -> None:
        self.price = price

    @task
    def cost(self, count: int) -> int:
        return self.price * count


def test_a_task_still_runs_here() -> None:
    assert double(4) == 8
    assert double(4, times=3) == 12
    assert Shop(3).cost(2) == 6


def test_a_task_looks_like_its_function() -> None:
    assert double.__name__ == "double"
    assert double.__doc__ == "Twice as much."
    assert list(inspect.signature(double).parameters) == ["x", "times"]
    assert repr(double) == "<task double>"
    assert repr(named) == "<task other>"


def test_type_checkers_see_its_parameters_and_result() -> None:
    """Checked by mypy: a wrong ignore comment is an error there."""
    assert_type(double(1), int)
    assert_type(named(1), str)
    if TYPE_CHECKING:
        assert_type(double.submit(1, times=3), Future[int])
        double("x")  # type: ignore[arg-type]
        double.submit(y=1)  # type: ignore[call-arg]


def test_options_come_by_keyword_and_can_be_changed_one_by_one() -> None:
    assert named.task_options == TaskOptions("other", 3)
    assert named.options(priority=-1).task_options == TaskOptions("other", -1)
    assert named.task_options.priority == 3, "the first is left alone"
    assert named.options(priority=-1)(5) == "5"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prioritty": 3}, TypeError, "unknown task option 'prioritty'; did you mean 'priority'?"),
        ({"nmae": "x"}, TypeError, "did you mean 'name'?"),
        ({"qqq": 1}, TypeError, "unknown task option 'qqq'; there are: name, priority, timeout, memory, at_most_once"),
        ({"priority": "high"}, TypeError, "priority must be an integer, not 'high'"),
        ({"priority": True}, TypeError, "priority must be an integer"),
        ({"at_most_once": 1}, TypeError, "at_most_once must be True or False, not 1"),
        ({"timeout": "1"}, TypeError, "timeout must be a number of seconds, not '1'"),
        ({"timeout": 0}, ValueError, "timeout must be above 0 seconds, not 0"),
        ({"memory": 1.5}, TypeError, "memory must be bytes or a text like '2GiB', not 1.5"),
        ({"memory": "much"}, ValueError, "'much' is not a size in memory"),
        ({"priority": 1001}, ValueError, "between -1000 and 1000"),
        ({"name": ""}, TypeError, "name must be a non-empty string"),
        ({"name": 5}, TypeError, "name must be a non-empty string"),
    ],
)
def test_an_option_that_does_not_fit_is_refused_where_it_is_written(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        task(**options)  # type: ignore[call-overload]
    with pytest.raises(error, match=re.escape(message)):
        double.options(**options)


def test_the_decorator_wants_a_function() -> None:
    with pytest.raises(TypeError, match="options go by name"):
        task("high")  # type: ignore[call-overload]


def test_an_importable_task_travels_by_name() -> None:
    data = pickle.dumps(double)
    assert len(data) < 100
    assert pickle.loads(data) is double


def test_a_task_with_other_options_travels_by_value_with_its_options() -> None:
    copy = loads(dump(double.options(priority=7, at_most_once=True)))
    assert isinstance(copy, Task)
    assert copy.task_options.priority == 7
    assert copy.task_options.at_most_once
    assert copy(3) == 6


def test_a_local_task_travels_by_value() -> None:
    offset = 5

    @task(priority=2)
    def shifted(x: int) -> int:
        return x + offset

    copy = cloudpickle.loads(dump(shifted))
    assert copy(1) == 6
    assert copy.task_options.priority == 2


def test_a_runner_calls_the_plain_function() -> None:
    assert plain_function(double) is double.function
    assert plain_function(len) is len
    assert call_object(double, 2, times=5) == 10


def test_names_are_qualified_or_chosen() -> None:
    assert task_name(Shop.cost.function) == "Shop.cost"
    assert task_name(named.function, named.task_options) == "other"
    assert task_name(Shop(1)) == "Shop"
    assert task_name(len) == "len"


def test_outside_of_a_runner_no_task_is_current() -> None:
    assert current_task() is None
    assert TaskInfo("1-2-3", 1, "f", "h").attempt == 1
    assert taskmesh.current_task is current_task
