"""Any sequence of records, commits, crashes and restarts, against the plain model: Hypothesis chooses."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from taskmesh.core.records import Record
from taskmesh.store.sqlite import SqliteStore

from .churn import Churn
from .model import Bell, Model, crashed, plain

BATCHES = int(os.environ.get("TASKMESH_STORE_EXAMPLES", "40"))


class Crashes(RuleBasedStateMachine):
    """One hub after another at one store. After each death it holds a prefix, and at least what was committed."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="tm-store-"))
        self.lives = 0
        self.history: list[list[Record]] = []  # what is known to be stored since the first life, then each batch
        self.appended: list[Record] = []
        self.churn = Churn(Random(0))
        self.path = self.home / "hub.db"
        self._open()

    def _open(self) -> None:
        self.bell = Bell()
        self.store = SqliteStore(self.path, self.bell)
        held = plain(self.store.load())
        prefixes = [[record for batch in self.history[:n] for record in batch] for n in range(len(self.history) + 1)]
        fitting = [n for n, records in enumerate(prefixes) if n >= self.sure() and Model(records).plain() == held]
        assert fitting, f"what is stored is no prefix with at least {self.sure()} of {len(self.history)} batches"
        self.history = self.history[: fitting[-1]]
        self.before = len(self.history)
        self.committed = self.before
        self.appended = []
        self.churn.model = Model(prefixes[fitting[-1]])

    def sure(self) -> int:
        """How many batches the last hub knew to be committed."""
        return self.committed if self.history else 0

    @invariant()
    def committed_never_falls_and_never_exceeds_what_was_flushed(self) -> None:
        now = self.before + self.store.committed
        assert self.committed <= now <= len(self.history)
        self.committed = now
        assert self.store.error is None

    @rule(seed=st.integers(0, 1 << 32))
    def append(self, seed: int) -> None:
        self.churn.random = Random(seed)
        for record in self.churn.batch():
            self.store.append(record)
            self.appended.append(record)

    @rule()
    def flush(self) -> None:
        ticket = self.store.flush()
        if self.appended:
            self.history.append(self.appended)
            self.appended = []
        assert ticket == len(self.history) - self.before

    @rule()
    def wait(self) -> None:
        self.bell.until(lambda: self.before + self.store.committed == len(self.history), "a commit")

    @precondition(lambda self: self.history)
    @rule()
    def crash(self) -> None:
        self.committed = self.before + self.store.committed
        self.lives += 1
        copy = crashed(self.path, self.home / str(self.lives))
        self.store.close()
        self.path = copy
        self._open()

    @rule()
    def close_and_open(self) -> None:
        if self.appended:
            self.history.append(self.appended)
        self.store.close()
        self.committed = len(self.history)
        self._open()

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.home)


TestCrashes = Crashes.TestCase
TestCrashes.settings = settings(max_examples=BATCHES, stateful_step_count=40, deadline=None)
