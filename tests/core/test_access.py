"""Which key may connect where: by example, and against a model over any order of events."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from taskmesh.core.access import (
    CONTROL,
    EVENTS,
    INBOXES,
    KEY_BYTES,
    NEVER,
    PEERS,
    SINK,
    SUBMIT,
    Access,
    Grant,
    Registration,
    Role,
    lane_domain,
)
from taskmesh.errors import LocalProtocolError

HUB = b"h" * KEY_BYTES


def key(number: int) -> bytes:
    """A public key."""
    return number.to_bytes(KEY_BYTES, "little")


LAPTOP = Grant("laptop", Role.CLIENT, key(1), 100.0)
FARM = Grant("farm", Role.WORKER, key(2), 100.0, expires_at=200.0)


@pytest.fixture
def access() -> Access:
    """A hub with two tickets and a registration by each."""
    made = Access([LAPTOP, FARM], HUB)
    made.enter(key(11), Registration(1, 71, "client", "laptop"))
    made.enter(key(12), Registration(2, 72, "daemon", "farm"))
    made.check()
    return made


def test_a_tickets_key_opens_control_and_nothing_else(access: Access) -> None:
    for grant in (LAPTOP, FARM):
        assert access.objection(CONTROL, grant.key, 150.0) is None
        for domain in (SUBMIT, SINK, lane_domain(1), lane_domain(2)):
            why = access.objection(domain, grant.key, 150.0)
            assert why is not None
            assert why.startswith("a key that is no live registration's (")


def test_the_key_of_an_admins_ticket_opens_events_while_it_is_good(access: Access) -> None:
    ops = Grant("ops", Role.ADMIN, key(3), 100.0, expires_at=200.0)
    access.put(ops)
    assert access.objection(EVENTS, ops.key, 199.0) is None
    assert access.objection(EVENTS, ops.key, 200.0) == "the ticket 'ops' has expired"
    access.put(ops._replace(revoked_at=150.0))
    assert access.objection(EVENTS, ops.key, 160.0) == "the ticket 'ops' was revoked"
    for grant in (LAPTOP, FARM):
        why = access.objection(EVENTS, grant.key, 150.0)
        assert why == f"the {grant.role} ticket {grant.name!r} may not read events: that takes an admin ticket"
    assert access.objection(EVENTS, key(99), 150.0) == "a key of no ticket"


@pytest.mark.parametrize(
    ("registration", "inbox", "others"),
    [
        (key(11), (SUBMIT, lane_domain(1)), (SINK, lane_domain(2), lane_domain(3))),
        (key(12), (SINK, lane_domain(2)), (SUBMIT, lane_domain(1), lane_domain(3))),
    ],
)
def test_a_registrations_key_opens_control_and_what_is_its_own(
    access: Access, registration: bytes, inbox: tuple[str, ...], others: tuple[str, ...]
) -> None:
    for domain in (CONTROL, *inbox):
        assert access.objection(domain, registration, 150.0) is None
    for domain in (*others, "events", ""):
        why = access.objection(domain, registration, 150.0)
        assert why is not None
        assert why.endswith(", which is not for that")


@pytest.mark.parametrize("stranger", [key(99), HUB, b"", b"short"])
def test_a_key_that_is_not_known_opens_nothing(access: Access, stranger: bytes) -> None:
    assert access.objection(CONTROL, stranger, 150.0) == "a key of no ticket"
    assert all(access.objection(domain, stranger, 150.0) for domain in (SUBMIT, SINK, lane_domain(1)))
    assert access.holder(stranger) is None
    assert access.registration(stranger) is None
    assert not access.speaks_for(stranger, 1)


def test_a_ticket_is_good_until_it_expires_or_is_revoked(access: Access) -> None:
    assert access.objection(CONTROL, FARM.key, 199.9) is None
    assert access.objection(CONTROL, FARM.key, 200.0) == "the ticket 'farm' has expired"
    access.put(LAPTOP._replace(revoked_at=160.0))
    assert access.objection(CONTROL, LAPTOP.key, 160.0) == "the ticket 'laptop' was revoked"


def test_a_key_speaks_for_its_registration_while_that_lasts(access: Access) -> None:
    assert access.speaks_for(key(11), 1)
    assert not access.speaks_for(key(11), 2)
    assert not access.speaks_for(key(12), 1)
    assert not access.speaks_for(LAPTOP.key, 1)
    access.leave(1)
    access.leave(1)
    access.check()
    assert not access.speaks_for(key(11), 1)
    assert access.objection(CONTROL, key(11), 150.0) == "a key of no ticket"


@pytest.mark.parametrize("taken", [key(1), key(2), key(11), key(12), HUB, b"", key(5)[:-1], key(5) + b"x"])
def test_a_registration_takes_no_key_that_is_somebodys(access: Access, taken: bytes) -> None:
    assert not access.may_use(taken)
    assert access.may_use(key(5))


def test_the_end_of_a_ticket_is_told_once(access: Access) -> None:
    assert access.next_expiry() == 200.0
    assert access.ended(199.0) == []
    assert access.ended(201.0) == [FARM]
    assert access.ended(202.0) == []
    assert access.next_expiry() == NEVER
    revoked = LAPTOP._replace(revoked_at=203.0)
    access.put(revoked)
    assert access.ended(203.0) == [revoked]
    assert access.grant("laptop") == revoked


def test_the_check_finds_indexes_that_disagree(access: Access) -> None:
    access._keys[1] = key(12)
    with pytest.raises(LocalProtocolError):
        access.check()


class Doorkeeper(RuleBasedStateMachine):
    """Registrations and tickets come and go in any order; the model is what the rules say, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.access = Access((), HUB)
        self.now = 100.0
        self.tickets: dict[bytes, Grant] = {}
        self.live: dict[bytes, Registration] = {}
        self.told: list[str] = []
        self.numbers = 0

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    @rule(role=st.sampled_from(list(Role)), lasts=st.sampled_from([1.0, 5.0, NEVER]))
    def create(self, role: Role, lasts: float) -> None:
        number = self._number()
        assert self.access.may_use(key(number))
        grant = self.tickets[key(number)] = Grant(f"t{number}", role, key(number), self.now, self.now + lasts)
        self.access.put(grant)

    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        if self.tickets:
            grant = data.draw(st.sampled_from(list(self.tickets.values())))
            if grant.revoked_at == NEVER:
                self.tickets[grant.key] = grant._replace(revoked_at=self.now)
                self.access.put(self.tickets[grant.key])

    @rule(data=st.data(), fresh=st.booleans())
    def register(self, data: st.DataObject, fresh: bool) -> None:
        if not self.tickets:
            return
        ticket = data.draw(st.sampled_from(list(self.tickets.values())))
        number = self._number()
        used = [*self.tickets, *self.live, HUB]
        chosen = key(number) if fresh else data.draw(st.sampled_from(used))
        assert self.access.may_use(chosen) == (chosen not in used)
        if self.access.may_use(chosen):
            self.live[chosen] = Registration(number, number + 1000, PEERS[ticket.role], ticket.name)
            self.access.enter(chosen, self.live[chosen])

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        epochs = [registered.epoch for registered in self.live.values()]
        epoch = data.draw(st.sampled_from([*epochs, 999_999]))
        self.live = {k: registered for k, registered in self.live.items() if registered.epoch != epoch}
        self.access.leave(epoch)

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds
        self.told += [grant.name for grant in self.access.ended(self.now)]
        gone = {grant.name for grant in self.tickets.values() if grant.objection(self.now) is not None}
        assert sorted(self.told) == sorted(gone), "each end is told, once"
        self.live = {k: registered for k, registered in self.live.items() if registered.ticket not in gone}
        for registered in list(self.access._live.values()):
            if registered.ticket in gone:
                self.access.leave(registered.epoch)

    @invariant()
    def every_key_opens_what_it_may_and_no_more(self) -> None:
        self.access.check()
        epochs = [registered.epoch for registered in self.live.values()]
        domains = [CONTROL, SUBMIT, SINK, *map(lane_domain, epochs[:5])]
        for candidate in (*self.tickets, *self.live, HUB, key(0)):
            for domain in domains:
                admitted = self.access.objection(domain, candidate, self.now) is None
                assert admitted == self._may(candidate, domain), (candidate, domain)
            assert [e for e in epochs if self.access.speaks_for(candidate, e)] == (
                [self.live[candidate].epoch] if candidate in self.live else []
            )

    def _may(self, candidate: bytes, domain: str) -> bool:
        if domain == CONTROL and candidate in self.tickets:
            return self.tickets[candidate].objection(self.now) is None
        if candidate not in self.live:
            return False
        registered = self.live[candidate]
        return domain in (CONTROL, lane_domain(registered.epoch)) or INBOXES.get(domain) == registered.peer


Doorkeeper.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestDoorkeeper = Doorkeeper.TestCase
