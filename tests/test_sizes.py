"""Sizes of memory, as people write them."""

from __future__ import annotations

import pytest

from taskmesh.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 1 << 20), (4096, 4096), ("1 kB", 1000), ("500MB", 500_000_000), ("2GiB", 2 << 30),
        ("2G", 2 << 30), ("2048M", 2 << 30), ("1.5g", 3 << 29), ("64k", 64 << 10), ("1T", 1 << 40),
    ],
)  # fmt: skip
def test_a_size_is_a_number_with_or_without_a_unit(text: int | str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "2X", "-1", "1e9", "GiB", True])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write bytes, or a number with a unit, like 500MB or 2GiB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["0", "0.1", "0GiB", "1048576TiB", "9" * 400])
def test_a_size_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="more than 0, and less than 1 EiB"):
        parse_size(text)
