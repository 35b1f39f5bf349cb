"""How many items a runner claims at once."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from taskmesh_worker.blocks import BELOW_S, BLOCK_S, Blocks


def sizes(*each_s: float) -> list[int]:
    """The sizes of successive blocks whose items take so long."""
    blocks = Blocks()
    found = [blocks.size]
    for seconds in each_s:
        blocks.ran(blocks.size, blocks.size * seconds)
        found.append(blocks.size)
    return found


def test_blocks_double_while_their_items_are_very_short() -> None:
    assert sizes(1e-7, 1e-7, 1e-7, 1e-7) == [1, 2, 4, 8, 16]


def test_a_block_is_no_more_than_half_a_millisecond_of_work() -> None:
    assert sizes(*[5e-7] * 20)[-1] == int(BLOCK_S / 5e-7)


def test_one_block_that_takes_longer_begins_again_from_a_single_item() -> None:
    assert sizes(1e-7, 1e-7, BELOW_S, 1e-7, 0.02) == [1, 2, 4, 1, 2, 1]


def test_another_function_begins_again_from_a_single_item() -> None:
    blocks = Blocks()
    blocks.begin(7, 1)
    blocks.ran(1, 1e-7)
    blocks.begin(7, 1)
    assert blocks.size == 2
    blocks.begin(7, 2)
    assert blocks.size == 1
    blocks.ran(1, 1e-7)
    blocks.begin(8, 2)
    assert blocks.size == 1


def test_items_whose_time_cannot_be_measured_are_very_short() -> None:
    assert sizes(0.0, 0.0, 0.0) == [1, 2, 4, 8]


@given(st.lists(st.floats(0, 1), max_size=50))
def test_blocks_are_never_empty_and_at_most_double(each_s: list[float]) -> None:
    found = sizes(*each_s)
    assert min(found) >= 1
    assert all(b <= 2 * a for a, b in itertools.pairwise(found))
