"""The pace of a spec: what a dose may hold when little is known of it."""

from __future__ import annotations

from taskmesh.core.credit import AHEAD_S, DOSE_S, TINY_GROWTH, UNKNOWN_S, Pace, room


def pace(*reports: tuple[int, float]) -> Pace:
    """What is known after reports of so many tasks, of so many seconds each."""
    known = Pace()
    for tasks, task_s in reports:
        known.observe(tasks, tasks * task_s)
    return known


def test_of_an_unknown_function_a_dose_is_one_task() -> None:
    assert pace().dose() == 1
    assert not pace().tiny


def test_doses_grow_with_what_was_measured() -> None:
    assert pace((1, 5e-4)).dose() == 1
    assert pace((4, 5e-4)).dose() == 4
    assert pace((1000, 5e-4)).dose() == round(DOSE_S / 5e-4)


def test_doses_of_tiny_tasks_grow_faster() -> None:
    assert pace((1, 1e-6)).dose() == TINY_GROWTH
    assert pace((4, 1e-6)).dose() == 4 * TINY_GROWTH


def test_one_long_task_is_not_forgotten_because_the_next_ones_were_short() -> None:
    assert pace((1, 1.0), (1, 1e-6), (1, 1e-6)).dose() == 1
    assert pace((1, 1.0), (1, 1e-6), (1, 1e-6)).peak_s > 0.5


def test_many_short_tasks_outweigh_one_that_took_longer() -> None:
    """The first call of a function touches everything for the first time."""
    known = pace((1, 7e-5), (16, 1e-6), (256, 1e-7))
    assert known.peak_s < 2e-7
    assert known.mean_s is not None
    assert known.mean_s < 1e-6


def test_tasks_of_a_report_that_is_small_beside_what_was_known_count_half() -> None:
    assert pace((1000, 1e-3), (1, 3e-3)).mean_s == 2e-3


# ---- the room of a daemon -------------------------------------------------------------------------------------------


def held(tasks: int, task_s: float) -> tuple[int, float]:
    """What a daemon holds: tasks, and their price in seconds."""
    return tasks, tasks * task_s


def test_tiny_tasks_are_handed_out_by_the_dose_while_there_is_enough_to_do() -> None:
    tiny = pace((100_000, 1e-6))
    dose, credit = tiny.dose(), round(2 * AHEAD_S / 1e-6)
    assert room(2, *held(credit - dose + 1, 1e-6), tiny) == 0
    assert room(2, *held(credit - dose - 2, 1e-6), tiny) >= dose


def test_a_daemon_that_will_soon_have_nothing_to_do_gets_crumbs_too() -> None:
    known = pace((4, 1e-6))  # trusted for a few tasks only
    assert room(2, *held(4, 1e-6), known) == known.trusted()
    known = pace((100_000, 1e-6))
    known.mean_s = 1e-4  # the first of them had taken much longer: by price there is room for less than a dose
    assert 0 < room(2, *held(4, 1e-4), known) < known.dose()


def test_longer_tasks_are_handed_out_one_by_one_as_ever() -> None:
    known = pace((1000, 1e-3))
    assert 0 < room(2, *held(58, 1e-3), known) < known.dose()


def test_a_tiny_task_is_held_ahead_of_need_behind_long_ones() -> None:
    """The rule about crumbs is not for them: they would wait for a round trip when a long one has ended."""
    assert room(2, 2, 100.0, pace((1000, 1e-6))) == 2


def test_what_goes_together_counts_as_one_task() -> None:
    assert room(4, 0, 0.0, pace(), grain=250) == 4 * 250
    assert room(4, 500, 500 * UNKNOWN_S, pace(), grain=250) == 2 * 250
    assert room(4, 501, 501 * UNKNOWN_S, pace(), grain=250) == 250
    assert room(4, *held(1000, 2e-3), pace((1000, 2e-3)), grain=250) == 0
    assert room(4, *held(64, 2**-10), pace((1000, 2**-10)), grain=16) == 4 * 16  # one ahead for each slot: it is short
