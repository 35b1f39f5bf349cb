"""How many items of a map are pickled together, and when they go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmesh.core.chunking import CHUNK_BYTES, CHUNK_ITEMS, FULL_S, LEAF_BYTES, LEAF_ITEMS, SLOW_S, Chunking
from taskmesh.core.limits import LEAF_TASKS


def grown(chunking: Chunking, item_bytes: int = 3, each_s: float = 0.0, leaves: int = 20) -> list[int]:
    """The sizes of successive leaves, in items."""
    sizes = []
    for _ in range(leaves):
        items = chunking.leaf_items
        sizes.append(items)
        chunking.pickled(items, items * item_bytes, items * each_s)
    return sizes


def test_leaves_double_up_to_their_full_size() -> None:
    assert grown(Chunking(), leaves=10) == [16, 32, 64, 128, 256, 512, 1024, 2048, LEAF_ITEMS, LEAF_ITEMS]


def test_leaves_of_large_items_are_about_64_kib() -> None:
    assert grown(Chunking(), item_bytes=LEAF_BYTES // 40)[-1] == 40
    assert grown(Chunking(), item_bytes=10 * LEAF_BYTES)[-1] == 1


def test_leaves_shrink_while_items_come_slowly() -> None:
    assert grown(Chunking(), each_s=2 * SLOW_S, leaves=6) == [16, 8, 4, 2, 1, 1]


@pytest.mark.parametrize("each_s", [0.0, 1.0])
def test_a_chunksize_is_kept_whatever_the_items_are(each_s: float) -> None:
    chunking = Chunking(chunksize=7)
    assert set(grown(chunking, item_bytes=LEAF_BYTES, each_s=each_s)) == {7}
    assert chunking.grain == 7


def test_no_chunksize_is_larger_than_a_leaf_may_be() -> None:
    assert Chunking(chunksize=10 * LEAF_TASKS).leaf_items == LEAF_TASKS


def test_each_worker_has_several_leaves_of_what_may_be_out() -> None:
    assert grown(Chunking(buffersize=100, workers=5))[-1] == 5
    assert grown(Chunking(buffersize=3, workers=5))[-1] == 1
    assert grown(Chunking(chunksize=50, buffersize=100, workers=5))[-1] == 5


def test_chunks_of_full_leaves_are_gathered_for_longer() -> None:
    chunking = Chunking()
    grown(chunking, leaves=2)
    assert not chunking.is_whole(1, 1, SLOW_S)
    assert chunking.is_whole(1, 1, SLOW_S * 1.1)
    grown(chunking)
    assert not chunking.is_whole(1, 1, FULL_S)
    assert chunking.is_whole(1, 1, FULL_S * 1.1)


def test_a_chunk_is_whole_by_its_items_or_by_its_bytes_but_never_empty() -> None:
    chunking = Chunking()
    grown(chunking, leaves=2)
    assert not chunking.is_whole(CHUNK_ITEMS - 1, CHUNK_BYTES - 1, 0.0)
    assert chunking.is_whole(CHUNK_ITEMS, 1, 0.0)
    assert chunking.is_whole(1, CHUNK_BYTES, 0.0)
    assert not chunking.is_whole(0, 0, 1.0)


def test_the_first_leaf_of_a_map_goes_alone() -> None:
    chunking = Chunking()
    assert not chunking.is_whole(0, 0, 0.0)
    grown(chunking, leaves=1)
    assert chunking.is_whole(16, 48, 0.0)
    grown(chunking, leaves=1)
    assert not chunking.is_whole(32, 96, 0.0)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 100)), max_size=40))
def test_a_leaf_is_never_empty_or_too_large(leaves: list[tuple[int, float]]) -> None:
    chunking = Chunking()
    for size, took_s in leaves:
        chunking.pickled(chunking.leaf_items, size, took_s)
        assert 1 <= chunking.leaf_items <= LEAF_ITEMS
