"""Outcomes as they reach the client: opened, and given to the futures that wait for them."""

from __future__ import annotations

import os
from typing import Any

import msgpack

from .core import messages as m
from .errors import MemoryLimitExceeded, PayloadError, TaskTimeout, WorkerLost
from .futures import Future, end_error, end_values
from .sizes import show_size
from .wire.payload import load_each, load_error, loads, unpickling_error


def end(futures: list[Future[Any]], name: str, outcome: m.Outcome) -> None:
    """Open an outcome, and end the futures that it speaks of.

    What was pickled is a user's, and what came is a peer's: whatever goes wrong in opening it is the result of those
    tasks, and of no others.
    """
    try:
        if outcome.form == m.Form.LIST:
            end_values(futures, contents(outcome))
        elif outcome.form == m.Form.EACH:
            for future, pickled in zip(futures, contents(outcome), strict=True):
                _end_one(future, name, pickled)
        else:
            end_error(futures[0], open_failure(outcome, name, futures[0].id))
    except BaseException as error:
        for future in futures:
            end_error(future, unreadable(error, name))


def contents(outcome: m.Outcome) -> list[Any]:
    """The results in an outcome of form LIST, or the pickles of them in one of form EACH: one for each of its tasks.

    Raises
    ------
    PayloadError
        They are fewer, or more. Given out one after the other, they would be those of other tasks.
    Exception
        Whatever unpickling raises.
    """
    found = loads(outcome.blob) if outcome.form == m.Form.LIST else load_each(outcome.blob)
    tasks = outcome.hi - outcome.lo
    if not isinstance(found, list) or len(found) != tasks:
        raise PayloadError(f"what came as the results of {tasks} tasks are not that many")
    return found


def _end_one(future: Future[Any], name: str, pickled: memoryview) -> None:
    try:
        value = loads(pickled)
    except BaseException as error:
        end_error(future, unreadable(error, name))
    else:
        end_values((future,), (value,))


def unreadable(error: BaseException, name: str) -> PayloadError:
    """What a task of `name` ends with when its result cannot be unpickled here."""
    failure = unpickling_error(error, f"the result of {name}", f"this machine ({os.uname().nodename})")
    failure.__cause__ = error
    return failure


def open_failure(outcome: m.Outcome, name: str, task: str) -> BaseException:
    """The exception in an outcome of form ERROR or LOST."""
    if outcome.form == m.Form.ERROR:
        try:
            return load_error(outcome.blob)
        except Exception as error:  # a peer's bytes
            return unreadable(error, name)
    try:
        return _open_report(msgpack.unpackb(outcome.blob), f"task {task} of {name}")
    except Exception:  # a peer's bytes
        return WorkerLost(f"task {task} of {name}: its runner died while running it, and did not say how")


def too_large(task: str, size: int, limit: int, tasks: int) -> PayloadError:
    """A result that the hub does not take."""
    what = (
        f"its result takes {show_size(size)} pickled"
        if tasks == 1
        else (f"its result and those of {tasks - 1:,} other tasks that ended with it take {show_size(size)} pickled")
    )
    return PayloadError(
        f"{task} has ended, but {what}, and the hub takes up to {show_size(limit)} (taskmesh hub --max-message): "
        f"have it write a file and return its name, or return less"
    )


def _open_report(report: dict[str, Any], task: str) -> BaseException:
    """What the daemon has written of a task that its runner did not end itself."""
    if "why" in report:  # the hub's own word: nobody was left to write another
        return WorkerLost(f"{task} may have started, and has no result: {report['why']}")
    if report["kind"] == "too large":
        return too_large(task, report["bytes"], report["limit_bytes"], report["tasks"])
    where = f"runner {report['pid']} of worker {report['worker']} on {report['host']}"
    lines = str(report["output"]).splitlines()[-20:]
    printed = "\nThe last lines that it printed:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""
    if report["kind"] == "timeout":
        return TaskTimeout(
            f"{task} ran longer than its timeout of {report['limit_s']:g} s on {where}, and did not end when it was "
            f"interrupted, so its runner was ended{printed}"
        )
    if report["kind"] == "memory":
        return MemoryLimitExceeded(
            f"{task} took {show_size(report['bytes'])} of memory on {where}, where {show_size(report['limit_bytes'])} "
            f"is the limit, so its runner was ended{printed}"
        )
    death = f"killed by {report['signal']}" if report["signal"] else f"exited with code {report['exitcode']}"
    oom = ", probably out of memory," if report["oom"] else ""
    return WorkerLost(f"{task}: {where} {death}{oom} while running it, so it is not tried again{printed}")
