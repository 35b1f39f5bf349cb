"""docs/guarantees.md names tests; each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs" / "guarantees.md").read_text())))


def test_there_are_some() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part)
def test_a_guarantee_names_a_test_that_is_there(file: str, name: str) -> None:
    path = ROOT / file if "/" in file else ROOT / "tests" / "system" / file
    assert not name or f"def {name}(" in path.read_text(), f"no test {name} in {path}"
    assert path.exists()
