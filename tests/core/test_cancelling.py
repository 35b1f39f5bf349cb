"""Callers that wait for the hub's word on what they cancelled."""

from __future__ import annotations

import pytest

from taskmesh import cancelling
from taskmesh.cancelling import Question, Questions


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "CANCEL_WAIT_S", 0.0)


def open_questions(*questions: Question) -> list[bool]:
    return [not question._answered.is_set() for question in questions]


def test_two_callers_may_ask_about_one_task() -> None:
    questions = Questions()
    keys = {(1, 7)}
    first, second = questions.ask(keys), questions.ask(keys)
    questions.answered(1, 5, [(2, 3)])
    assert open_questions(first, second) == [False, False]


def test_who_has_gone_does_not_take_the_answer_of_others() -> None:
    questions = Questions()
    keys = {(1, 7)}
    first, second = questions.ask(keys), questions.ask(keys)
    questions.forget(first, keys)
    questions.answered(1, 0, [(7, 8)])
    assert open_questions(first, second) == [True, False]
    questions.forget(second, keys)
    assert not questions._asked


def test_a_question_about_many_waits_for_all() -> None:
    questions = Questions()
    question = questions.ask({(1, 0), (1, 1), (2, 0)})
    questions.answered(1, 0, [(0, 5)])
    assert open_questions(question) == [True]
    questions.answered(2, 0, [(0, 1)])
    assert open_questions(question) == [False]


def test_a_question_about_nothing_is_answered_and_the_end_answers_all() -> None:
    questions = Questions()
    assert open_questions(questions.ask(())) == [False]
    question = questions.ask({(1, 0)})
    questions.end()
    assert open_questions(question) == [False]
