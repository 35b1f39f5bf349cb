"""Outcomes as they reach the client: opened, and given to the futures that wait for them."""

from __future__ import annotations

import os
from typing import Any

import msgpack

from .core import messages as m
from .errors import PayloadError, WorkerLost
from .futures import Future, settle_error, settle_values
from .wire.payload import load_each, load_error, loads, unpickling_error


def settle(futures: list[Future[Any]], name: str, outcome: m.Outcome) -> None:
    """Open an outcome and settle the futures that it speaks of.

    What was pickled is a user's, and what came is a peer's: whatever goes wrong in opening it is the result of those
    tasks, and of no others.
    """
    try:
        if outcome.form == m.Form.LIST:
            settle_values(futures, loads(outcome.blob))
        elif outcome.form == m.Form.EACH:
            for future, pickled in zip(futures, load_each(outcome.blob), strict=True):
                _settle_one(future, name, pickled)
        else:
            settle_error(futures[0], open_failure(outcome, name, futures[0].id))
    except BaseException as error:
        for future in futures:
            settle_error(future, _unreadable(error, name))


def _settle_one(future: Future[Any], name: str, pickled: memoryview) -> None:
    try:
        value = loads(pickled)
    except BaseException as error:
        settle_error(future, _unreadable(error, name))
    else:
        settle_values((future,), (value,))


def _unreadable(error: BaseException, name: str) -> PayloadError:
    failure = unpickling_error(error, f"the result of {name}", f"this machine ({os.uname().nodename})")
    failure.__cause__ = error
    return failure


def open_failure(outcome: m.Outcome, name: str, task: str) -> BaseException:
    """The exception in an outcome of form ERROR or LOST."""
    if outcome.form == m.Form.ERROR:
        try:
            return load_error(outcome.blob)
        except Exception as error:  # a peer's bytes
            return _unreadable(error, name)
    try:
        report = msgpack.unpackb(outcome.blob)
        death = f"killed by {report['signal']}" if report["signal"] else f"exited with code {report['exitcode']}"
        where = f"runner {report['pid']} on {report['host']}"
    except Exception:  # a peer's bytes
        death, where = "died", "its runner"
    return WorkerLost(
        f"task {task} of {name}: {where} {death} while running it; three runners died over this task, so it is "
        f"not tried again"
    )
