"""What once found something finds nothing any more."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from .corpus import CORPUS, replay, save, shrink
from .oracle import Broken, Finding
from .source import Source
from .targets import TARGETS

SAVED = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Whatever is dropped is logged, and everything is."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("path", SAVED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_past_finding_stays_mended(path: Path) -> None:
    finding = replay(path)
    assert finding is None, finding.text if finding else ""


def test_every_folder_of_the_corpus_is_that_of_a_target() -> None:
    assert {path.parent.name for path in SAVED} <= set(TARGETS)


def test_a_finding_is_shrunk_saved_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dislikes(source: Source) -> None:
        if b"bad" in source.rest():
            raise Broken("it is bad")

    monkeypatch.setitem(TARGETS, "message", dislikes)
    path = save(Finding("message", "?", "", b"1" * 100 + b"bad" + b"2" * 100), tmp_path)
    finding = replay(path)
    assert finding is not None
    assert finding.where == "Broken in tests/fuzz/test_corpus.py:dislikes"
    assert shrink(finding).data == b"bad"
