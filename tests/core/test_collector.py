"""The garbage collector is left alone, but during a burst."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from taskmesh.collector import BURST_THRESHOLD, CALM_AFTER_S, Collector


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_a_burst_raises_the_first_threshold_and_calm_puts_it_back() -> None:
    collector = Collector()
    collector.burst(10.0)
    collector.burst(10.5)
    assert gc.get_threshold()[0] == BURST_THRESHOLD
    collector.relax(10.5 + CALM_AFTER_S / 2)
    assert gc.get_threshold()[0] == BURST_THRESHOLD
    collector.relax(10.5 + CALM_AFTER_S)
    assert gc.get_threshold()[0] == 700


def test_what_the_user_has_set_in_the_meantime_stays() -> None:
    collector = Collector()
    collector.burst(0.0)
    gc.set_threshold(1234, 10, 10)
    collector.relax(9.0)
    assert gc.get_threshold()[0] == 1234


@pytest.mark.parametrize("threshold", [0, 1_000_000])
def test_a_collector_that_is_off_or_patient_is_not_touched(threshold: int) -> None:
    gc.set_threshold(threshold, 10, 10)
    collector = Collector()
    collector.burst(0.0)
    assert gc.get_threshold()[0] == threshold
    collector.relax(9.0)
    assert gc.get_threshold()[0] == threshold
