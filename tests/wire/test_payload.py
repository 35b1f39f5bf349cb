"""Pickles: what travels how, and errors that travel whatever they are."""

from __future__ import annotations

import subprocess
import sys
import threading
import traceback

import pytest

from taskmesh.core.identity import digest_of
from taskmesh.errors import ModuleMissing, PayloadError, RemoteError
from taskmesh.wire.payload import (
    dump,
    dump_body,
    dump_call,
    dump_each,
    dump_error,
    load_each,
    load_error,
    loads,
    unpickling_error,
)


class TakesTwo(Exception):
    """Pickles, and does not unpickle: its arguments are not what `__init__` takes."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class HoldsALock(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


def caught(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as same:
        return same


def test_calls_travel_with_and_without_keywords() -> None:
    assert loads(dump_call((1, "a"), {}, "f")) == (1, "a")
    assert loads(dump_call((1,), {"fn": 2}, "f")) == [(1,), {"fn": 2}]


def test_an_argument_that_cannot_travel_is_named_with_its_function() -> None:
    with pytest.raises(PayloadError, match=r"arguments of crunch.*lock"):
        dump_call((threading.Lock(),), {}, "crunch")
    lock = threading.Lock()
    with pytest.raises(PayloadError, match=r"cannot pickle crunch.*lock"):
        dump_body(lambda: lock, "crunch")


def test_lambdas_travel_by_value_and_importable_functions_by_name() -> None:
    by_name = dump_body(traceback.format_exc, "format_exc")
    by_value = dump_body(lambda x: x + 1, "add")
    assert len(by_name) < 100 < len(by_value)
    assert loads(by_value)(2) == 3
    assert digest_of(by_name) != digest_of(by_value)
    assert len(digest_of(by_name)) == 16


def test_pickles_in_one_blob_come_out_as_they_went_in() -> None:
    values = [1, "two", None, [3] * 1000]
    assert [loads(part) for part in load_each(dump_each([dump(value) for value in values]))] == values
    assert load_each(dump_each([])) == []


def test_an_error_keeps_its_type_and_brings_its_traceback() -> None:
    error = load_error(dump_error(caught(KeyError("k"))))
    assert type(error) is KeyError
    assert error.args == ("k",)
    printed = "".join(traceback.format_exception(error))
    assert "in caught" in printed
    assert "raise error" in printed


@pytest.mark.parametrize(
    ("error", "message"),
    [(TakesTwo(1, 2), "1 and 2"), (HoldsALock(), "locked")],
    ids=["does not unpickle", "does not pickle"],
)
def test_an_error_that_cannot_travel_arrives_as_remote_error(error: Exception, message: str) -> None:
    arrived = load_error(dump_error(caught(error)))
    assert isinstance(arrived, RemoteError)
    assert arrived.type_name.endswith(type(error).__name__)
    assert arrived.message == message
    assert "in caught" in arrived.remote_traceback
    again = loads(dump(arrived))
    assert (again.type_name, again.message) == (arrived.type_name, arrived.message)


def test_an_error_without_words_still_arrives() -> None:
    arrived = load_error(dump_error(caught(Unprintable())))
    assert "no words" in str(arrived.__cause__) or "Unprintable" in str(arrived.__cause__)


def test_a_missing_module_is_named_with_host_and_remedy() -> None:
    error = unpickling_error(ModuleNotFoundError("no", name="pkg.mod"), "the function f", "node7")
    assert isinstance(error, ModuleMissing)
    assert isinstance(error, ModuleNotFoundError)
    for word in ("node7", "'pkg.mod'", "the function f", "Install", "register_pickle_by_value(pkg)"):
        assert word in str(error)


class LiesAboutItself(Exception):
    """Its `__reduce__` names something that is no exception at all."""

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (5,)


class EndsTheProgram(Exception):
    """Whoever unpickles it is told to exit."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return sys.exit, (3,)


class CannotBeReduced(Exception):
    def __reduce__(self) -> tuple[object, tuple[int]]:
        raise SystemExit(4)


@pytest.mark.parametrize("error", [LiesAboutItself("x"), EndsTheProgram("x"), CannotBeReduced("x")], ids=repr)
def test_no_exception_can_do_more_than_fail_its_task(error: Exception) -> None:
    arrived = load_error(dump_error(caught(error)))
    assert isinstance(arrived, RemoteError)
    assert type(error).__name__ in arrived.type_name
    assert arrived.message == "x"


def test_text_that_is_no_unicode_arrives() -> None:
    arrived = load_error(dump_error(caught(ValueError("\ud800"))))
    assert isinstance(arrived, ValueError)
    assert "\\ud800" in str(arrived.__cause__)


SCRIPT = """
import sys
from taskmesh.wire.payload import dump, dump_body
LIMIT = 10
class Point:
    def __init__(self, x): self.x = x
def clipped(point): return min(point.x, LIMIT)
sys.stdout.buffer.write(dump((clipped, Point(30), lambda: LIMIT + 1)))
"""


def test_what_lives_in_main_travels_by_value() -> None:
    """Its name would mean something else, or nothing, in the worker."""
    script = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True, timeout=30)
    clipped, point, more = loads(script.stdout)
    assert clipped(point) == 10
    assert more() == 11
