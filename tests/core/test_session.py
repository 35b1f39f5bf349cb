"""What the client's side books, one sentence each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmesh.core import messages as m
from taskmesh.core.session import WEIGHT, ClientSpec, Session
from taskmesh.errors import LocalProtocolError

D = b"0123456789abcdef"
NOBODY: Any = object()  # who takes the outcomes of a map; it gets none here


@pytest.fixture
def session() -> Session[str]:
    return Session()


def define(session: Session[str], digest: bytes = D) -> ClientSpec[str]:
    return session.define("f", b"body", digest, None, 0)


def unsent(session: Session[str]) -> list[m.LinkMessage]:
    """What is to be sent, and is then."""
    messages = list(session.unsent)
    session.unsent.clear()
    return messages


def sealed(session: Session[str], spec: ClientSpec[str], *waiters: str) -> m.Submit:
    """Calls are gathered and sent."""
    for waiter in waiters:
        session.open_chunk(spec).calls.append((waiter.encode(), waiter))
    submit = session.seal(spec)
    assert submit is not None
    session.sealed(spec)
    session.check()
    return submit


def ok(first: int, lo: int, hi: int, spec: int = 1) -> m.Outcome:
    return m.Outcome(spec, first, lo, hi, m.Form.LIST, b"")


def test_a_function_is_introduced_with_its_body_once(session: Session[str]) -> None:
    session.define("f", b"body", D, (b"i" * 16, b"init"), 3)
    assert unsent(session) == [m.Spec(1, "f", D, b"i" * 16, 3), m.Body(D, b"body"), m.Body(b"i" * 16, b"init")]
    session.define("g", b"body", D, None, 0)
    assert unsent(session) == [m.Spec(2, "g", D, b"", 0)]


def test_a_body_is_sent_again_after_its_last_function_was_retired(session: Session[str]) -> None:
    spec = define(session)
    assert session.retire(spec) == [m.Retire(1)]
    unsent(session)
    define(session)
    assert m.Body(D, b"body") in unsent(session)


def test_nothing_is_called_of_a_spec_that_was_retired(session: Session[str]) -> None:
    spec = define(session)
    session.retire(spec)
    with pytest.raises(LocalProtocolError, match="spec 1, which the hub was told to forget"):
        session.open_chunk(spec)
    with pytest.raises(LocalProtocolError):
        session.add_items(spec, [b"x"], [1], 1, NOBODY)
    session.check()


def test_calls_are_numbered_in_order_over_chunks(session: Session[str]) -> None:
    spec = define(session)
    first, second = sealed(session, spec, "a", "bc"), sealed(session, spec, "d")
    assert (first.chunk.first, first.chunk.count, first.chunk.payload) == (0, 2, b"abc")
    assert (second.chunk.first, second.chunk.count) == (2, 1)
    assert session.add_items(spec, [b"xyz"], [3], 1, NOBODY).first == 3
    assert session.unsettled == 6


def test_an_empty_chunk_is_not_sent(session: Session[str]) -> None:
    spec = define(session)
    assert session.seal(spec) is None
    session.open_chunk(spec)
    assert session.seal(spec) is None
    session.check()


def test_an_outcome_is_delivered_to_whom_it_is_new(session: Session[str]) -> None:
    spec = define(session)
    sealed(session, spec, "a", "b", "c")
    first = session.outcome(ok(0, 1, 2))
    assert first is not None
    assert first.fresh == [(1, 2)]
    second = session.outcome(ok(0, 0, 3))
    assert second is not None
    assert second.fresh == [(0, 1), (2, 3)]
    assert second.sent.waiters == ["a", "b", "c"]
    assert session.outcome(ok(0, 0, 3)) is None
    assert session.unsettled == 0


@pytest.mark.parametrize("outcome", [ok(0, 0, 1, spec=9), ok(7, 0, 1), ok(0, 0, 4), ok(0, 3, 4)])
def test_an_outcome_of_what_nobody_knows_is_dropped(session: Session[str], outcome: m.Outcome) -> None:
    sealed(session, define(session), "a", "b", "c")
    assert session.outcome(outcome) is None
    assert session.unsettled == 3


def test_a_function_is_retired_when_its_last_task_has_ended(session: Session[str]) -> None:
    spec = define(session)
    sealed(session, spec, "a")
    assert session.retire(spec) == []
    session.outcome(ok(0, 0, 1))
    assert session.retire(spec) == [m.Retire(1)]
    assert session.retire(spec) == []


def test_a_hub_that_has_forgotten_the_session_hears_up_to_where_functions_were_retired(session: Session[str]) -> None:
    kept, retired = define(session), define(session)
    session.retire(retired)
    assert session.offer_again() == [m.Spec(kept.number, "f", D, b"", 0), m.Body(D, b"body"), m.Retire(2)]
    define(session)
    assert m.Retire(3) not in session.offer_again()


def test_a_seal_that_was_interrupted_is_repeated_without_a_change(session: Session[str]) -> None:
    spec = define(session)
    session.open_chunk(spec).calls.append((b"a", "a"))
    first = session.seal(spec)
    again = session.seal(spec)
    assert first is not None
    assert again is not None
    assert (first.chunk.first, first.chunk.payload) == (again.chunk.first, again.chunk.payload)
    session.sealed(spec)
    assert session.unsettled == 1


def test_an_outcome_shows_that_an_interrupted_seal_had_been_sent(session: Session[str]) -> None:
    """Else the chunk would be sent again although it has ended, and nobody would ever settle it."""
    spec = define(session)
    session.open_chunk(spec).calls.append((b"a", "a"))
    session.seal(spec)
    assert session.outcome(ok(0, 0, 1)) is not None
    assert session.seal(spec) is None
    assert session.unsettled == 0
    assert session.open_chunk(spec).first == 1


def test_a_hub_that_forgot_is_offered_everything_that_has_not_ended(session: Session[str]) -> None:
    spec = define(session)
    gone, half = sealed(session, spec, "a"), sealed(session, spec, "b", "c", "d")
    session.outcome(ok(0, 0, 1))
    session.outcome(ok(1, 1, 2))
    assert session.offer_again() == [
        m.Spec(1, "f", D, b"", 0), m.Body(D, b"body"), half._replace(left=[(0, 1), (2, 3)]),
    ]  # fmt: skip
    assert gone.chunk.first == 0


def test_books_that_contradict_each_other_are_our_fault(session: Session[str]) -> None:
    spec = define(session)
    sealed(session, spec, "a")
    spec.next = 0
    with pytest.raises(LocalProtocolError):
        session.check()


@given(
    st.lists(
        st.builds(m.Outcome, st.integers(0, 2), st.integers(0, 4), st.integers(0, 4), st.integers(1, 6),
                  st.sampled_from(m.Form), st.just(b""))
    )
)  # fmt: skip
def test_no_order_of_the_hubs_words_upsets_the_books(words: list[m.Outcome]) -> None:
    session: Session[str] = Session()
    spec = define(session)
    sealed(session, spec, "a", "b", "c")
    sealed(session, spec, "d")
    ended: list[tuple[int, int]] = []
    for word in words:
        delivery = session.outcome(word)
        fresh = delivery.fresh if delivery is not None else []
        ended += [(word.first, offset) for lo, hi in fresh for offset in range(lo, hi)]
        session.check()
    assert len(ended) == len(set(ended)), "every task ends once"
    assert session.unsettled == 4 - len(ended)


def test_what_is_unsettled_is_weighed_until_it_has_ended(session: Session[str]) -> None:
    spec = define(session)
    sealed(session, spec, "aaaa", "bb", "c")
    assert session.weight == 7 + 3 * WEIGHT
    session.outcome(ok(0, 0, 2))
    session.check()
    assert session.weight == 7 + WEIGHT, "the chunk's payload is kept until all of it has ended"
    session.outcome(ok(0, 0, 3))
    assert session.weight == 0
    session.add_items(spec, [b"xyz", b"uv"], [300, 300], 1, NOBODY)
    assert session.weight == 5 + 2 * WEIGHT, "a leaf of a map counts once"
    session.outcome(ok(3, 0, 600))
    assert session.weight == 0
    session.check()


def test_a_seal_that_is_repeated_weighs_once_and_forgets_nothing(session: Session[str]) -> None:
    spec = define(session)
    session.open_chunk(spec).calls.append((b"a", "a"))
    session.seal(spec)
    kept = spec.sent[0]
    session.seal(spec)
    assert spec.sent[0] is kept
    session.check()
    assert session.weight == 1 + WEIGHT


def test_what_the_hub_rejects_has_ended(session: Session[str]) -> None:
    spec = define(session)
    sealed(session, spec, "a", "b", "c")
    session.outcome(ok(0, 1, 2))
    rejected = session.rejected(m.Rejected(1, 0, "full"))
    assert rejected is not None
    assert rejected[0].waiters == ["a", "b", "c"]
    assert rejected[1] == [(0, 1), (2, 3)]
    assert session.rejected(m.Rejected(1, 0, "full")) is None
    assert session.rejected(m.Rejected(9, 0, "full")) is None
    assert (session.weight, session.unsettled) == (0, 0)
    session.check()


def test_a_cancel_is_asked_of_a_hub_that_forgot_once_more(session: Session[str]) -> None:
    spec = define(session)
    submit = sealed(session, spec, "a", "b", "c")
    session.outcome(ok(0, 0, 1))
    asked = session.cancel(spec, 0, [(0, 2)], interrupt=True)
    assert asked == [m.Cancel(1, 0, 1, 2, True)], "what has ended is not cancelled"
    assert session.cancel(spec, 0, [(0, 2)], interrupt=True) == asked
    assert session.cancel(spec, 7, [(0, 2)]) == []
    assert session.offer_again()[2:] == [submit._replace(left=[(1, 3)]), *asked]


def test_what_is_offered_again_is_not_sent_a_second_time_behind_newer_chunks(session: Session[str]) -> None:
    """The hub takes the chunks of a spec in order, and an older one for a repetition."""
    spec = define(session)
    session.unsent.clear()
    session.add_items(spec, [b"x"], [1], 1, NOBODY)
    session.open_chunk(spec).calls.append((b"a", "a"))
    session.seal(spec)  # and the caller is stopped before `sealed`
    offered = session.offer_again()
    assert [x.chunk.first for x in offered if isinstance(x, m.Submit)] == [0, 1]
    assert not session.unsent
    assert session.seal(spec) is None
    session.check()


def test_who_waits_is_told_once_when_a_session_gives_up(session: Session[str]) -> None:
    spec = define(session)
    owner: Any = object()
    sealed(session, spec, "a")
    session.add_items(spec, [b"x"], [1], 1, owner)
    session.add_items(spec, [b"x"], [1], 1, owner)
    session.open_chunk(spec).calls.append((b"b", "b"))
    session.seal(spec)
    assert session.give_up() == (["a", "b"], [owner])
    assert session.give_up() == ([], [])
    session.check()
    assert (session.weight, session.unsettled) == (0, 0)


@given(st.lists(st.sampled_from(["submit", "items", "seal", "stop", "end", "reject", "reset"]), max_size=30))
def test_no_reset_and_no_stopped_caller_loses_a_task(steps: list[str]) -> None:
    """A hub that forgets at any time, between any two steps of a caller, still ends every task once."""
    session: Session[str] = Session()
    spec = define(session)
    hub: dict[int, list[tuple[int, int]]] = {}
    submitted = 0  # as the hub's: what is below was taken, or came too late
    tasks = 0
    ended: list[int] = []

    def receive(messages: list[m.LinkMessage]) -> None:
        nonlocal submitted
        for message in messages:
            if isinstance(message, m.Submit) and message.chunk.first >= submitted:
                submitted = message.chunk.first + message.chunk.count
                hub[message.chunk.first] = list(message.left) or [(0, message.chunk.count)]

    def send(submit: m.Submit | None) -> None:
        receive(list(session.unsent))
        session.unsent.clear()
        receive([submit] if submit else [])

    def end(first: int) -> None:
        for lo, hi in hub.pop(first):
            delivery = session.outcome(ok(first, lo, hi))
            ended.extend(first + n for a, b in (delivery.fresh if delivery else []) for n in range(a, b))

    for step in steps:
        if step == "submit":
            if spec.open is not None and spec.open.frozen:
                send(session.seal(spec))
                session.sealed(spec)
            session.open_chunk(spec).calls.append((b"a", "a"))
            tasks += 1
        elif step in ("seal", "items"):
            send(session.seal(spec))
            session.sealed(spec)
            if step == "items":
                session.add_items(spec, [b"xx"], [2], 1, NOBODY)
                tasks += 2
        elif step == "stop":
            session.seal(spec)
        elif step == "end" and hub:
            end(min(hub))
        elif step == "reject" and hub:
            first = max(hub)
            rejected = session.rejected(m.Rejected(1, first, "full"))
            del hub[first]
            ended.extend(first + n for a, b in (rejected[1] if rejected else []) for n in range(a, b))
        elif step == "reset":
            hub.clear()
            submitted = 0
            receive(session.offer_again())
        session.check()
    send(session.seal(spec))
    session.sealed(spec)
    for first in sorted(hub):
        end(first)
    assert sorted(ended) == list(range(tasks))
    assert (session.unsettled, session.weight) == (0, 0)
