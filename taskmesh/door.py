"""The door of a hub: its keys, who comes in by which, and the record of that.

`core.access` decides; this gives it the keys that connections were authenticated by, keeps tickets in the hub's
keyring, and writes down what happened. A hub without keys, on `ipc://` or `--insecure`, has a door that is open:
whoever can reach it may do everything.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING

import zmq

from .complaints import Complaint, Complaints
from .core import messages as m
from .core.access import EVENTS, LOCAL, NEVER, Access, Grant, Registration, Role
from .core.quota import Bucket
from .errors import KeysError
from .transport.curve import Arrival, Zap, get_from, guard, raw
from .transport.loop import Loop
from .transport.presence import failure_monitor, failures
from .transport.sockets import Context, Socket, get

if TYPE_CHECKING:
    from .feed import Feed
    from .security.audit import Audit
    from .security.keyring import Keyring

CHECK_EVERY_S = 1.0
NOTED = 64  # characters of what a peer calls itself, in the audit log
NOTES_PER_S, NOTES_SAVED_S = 1.0, 2000.0  # of registrations with one ticket: a fleet, and no flood
NO_KEYS, NEEDLESS_KEYS = "it has no keys, and this hub has", "it has keys, and this hub has none (--insecure)"
OTHER_KEY = "it was meant for a hub that has another key"


class Door:
    """Whoever comes to a hub comes by this. Attribute `feed`: who is told what happens, if anybody.

    Parameters
    ----------
    keyring
        The hub's keys and tickets; None: it has none, and everybody may come in.
    complaints
        Where refusals are counted.
    context, loop
        Of the hub's sockets.
    """

    def __init__(self, keyring: Keyring | None, complaints: Complaints, context: Context, loop: Loop) -> None:
        self._keyring = keyring
        self._audit: Audit | None = None
        self._complaints = complaints
        self._loop = loop
        self.access = Access(keyring.grants, raw(keyring.public_key)) if keyring is not None else Access()
        self._check_at = 0.0
        self._notes: dict[tuple[str, str], Bucket] = {}  # of registrations and readers, by event and ticket
        self._unnoted: Counter[tuple[str, str]] = Counter()
        self._monitors: dict[Socket, Socket] = {}  # of sockets that the hub closes
        self._readers: set[str] = set()  # tickets by which somebody has begun to read events
        self.feed: Feed | None = None
        self._since = time.time()
        self._zap = Zap(context, loop, self._admit) if keyring is not None else None

    @property
    def secure(self) -> bool:
        """Whether there are keys."""
        return self._keyring is not None

    def guard(self, sock: Socket, domain: str) -> None:
        """Have a socket, before it is bound, let in only those that may use this channel."""
        if self._keyring is not None:
            guard(sock, self._keyring.secret_key, domain)

    def watch(self, sock: Socket, domain: str) -> None:
        """Have handshakes that fail on a socket counted.

        Raises
        ------
        AddressError
            There is no socket left for that.
        """
        monitor = failure_monitor(sock)
        self._monitors[sock] = monitor
        self._loop.watch(monitor, lambda: self._read_monitor(monitor, domain))

    def unwatch(self, sock: Socket) -> None:
        """Do so no longer, before the socket is closed."""
        monitor = self._monitors.pop(sock, None)
        if monitor is not None:
            self._loop.forget(monitor)

    def _read_monitor(self, monitor: Socket, domain: str) -> None:
        for reason in failures(monitor):
            self.failed(domain, reason)

    def failed(self, domain: str, reason: int) -> None:
        """A handshake failed, for ZeroMQ's `reason`, before anybody had shown a key; ZeroMQ does not say whose."""
        if reason == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            why = NO_KEYS if self.secure else NEEDLESS_KEYS
        elif reason == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC:
            why = OTHER_KEY
        else:
            why = "its handshake makes no sense"
        self._refused("somebody", None, domain, why)

    def _refused(self, who: str, address: str | None, domain: str, why: str) -> None:
        if self._complaints.add(Complaint.CONNECTION, f"{who} on {domain}: {why}", self._loop.now()):
            self.note("connection refused", address=address, channel=domain, why=why)

    def get(self, sock: Socket) -> Arrival | None:
        """The next frame of a guarded socket, and by which key it came."""
        if self._keyring is not None:
            return get_from(sock)
        frame = get(sock)
        return None if frame is None else Arrival(frame, b"", "")

    def _admit(self, domain: str, key: bytes, address: str) -> bool:
        why = self.access.objection(domain, key, time.time())
        if why is None:
            if domain == EVENTS:
                self._note_reader(key, address)
            return True
        self._refused(address, address, domain, why)
        return False

    # ---- who it is ------------------------------------------------------------------------------------------

    def holder(self, key: bytes) -> Grant | None:
        """The ticket of whoever has sent this on control; None if it has none that is good."""
        if self._keyring is None:
            return LOCAL
        live = self.access.registration(key)
        grant = self.access.grant(live.ticket) if live is not None else self.access.holder(key)
        return grant if grant is not None and grant.objection(time.time()) is None else None

    def objection(self, request: m.Register, key: bytes) -> str | None:
        """Why this request for a registration is not even looked at."""
        if self._keyring is None:
            return None
        why = self.access.ticket_objection(key, time.time())
        if why is not None:
            return why
        if not request.secret:
            return "a registration needs a secret"
        live = self.access.registration(request.key)
        if live is not None and live.instance == request.instance:
            return None  # a repetition: what follows from it is the roster's business
        return None if self.access.may_use(request.key) else "a registration needs a fresh key of its own"

    def speaks_for(self, key: bytes, epoch: int) -> bool:
        """Whether what comes by this key is of the registration `epoch`."""
        return self._keyring is None or self.access.speaks_for(key, epoch)

    def enter(self, request: m.Register, epoch: int, ticket: str) -> bool:
        """A registration begins. False: its key is not fresh."""
        if self._keyring is None:
            return True
        if not self.access.may_use(request.key):
            return False
        self.access.enter(request.key, Registration(epoch, request.instance, request.role, ticket))
        return True

    def leave(self, epoch: int) -> None:
        """A registration is over."""
        self.access.leave(epoch)

    # ---- tickets --------------------------------------------------------------------------------------------

    def administer(self, request: m.ControlMessage, holder: Grant) -> m.ControlMessage:
        """Do what an admin asks for; `holder` is whose ticket asks."""
        asks = {m.CreateTicket: "create a ticket", m.RevokeTicket: "revoke a ticket", m.ListTickets: "list tickets"}
        what = asks[type(request)]
        if self._keyring is None:
            return m.Refused("this hub has no keys, so it has no tickets (--insecure, or ipc://)")
        if not holder.manages:
            why = f"the {holder.role} ticket {holder.name!r} may not {what}: that takes an admin ticket"
            if self._complaints.add(Complaint.REQUEST, why, self._loop.now()):
                self.note("command refused", ticket=holder.name, command=what)
            return m.Refused(why)
        try:
            self._change(self._keyring, request, holder)
        except (KeysError, ValueError) as error:
            return m.Refused(str(error))
        from .security.grants import document

        return m.Tickets(json.dumps(document(self._keyring.grants, time.time())).encode())

    def publish(self, address: str) -> None:
        """Make the first tickets, see `Keyring.first_tickets`, and begin the audit log."""
        if self._keyring is not None:
            from .security.audit import Audit

            self._audit = Audit(self._keyring.directory / "audit.jsonl")
            self.note("hub started", address=address)
            self._keyring.first_tickets(address)
            for grant in self._keyring.grants:
                self.access.put(grant)

    def _change(self, keyring: Keyring, request: m.ControlMessage, holder: Grant) -> None:
        now = time.time()
        if isinstance(request, m.CreateTicket):
            if not self.access.may_use(request.key):
                raise ValueError("a ticket needs a key of 32 bytes that nothing else has")
            expires_at = now + request.valid_s if request.valid_s else NEVER
            grant = keyring.create(request.name, Role(request.role), request.key, now, expires_at)
            self.access.put(grant)
            self.note(
                "ticket created", name=grant.name, role=grant.role, valid_s=request.valid_s or None, by=holder.name
            )
        elif isinstance(request, m.RevokeTicket):
            self.access.put(keyring.revoke(request.name, now))
            self._check_at = 0.0
            self.note("ticket revoked", name=request.name, by=holder.name)

    def ended(self, now: float) -> list[tuple[str, str]]:
        """Tickets that have ended since this was last asked, and why. `now` is the loop's time."""
        if self._keyring is None or now < self._check_at:
            return []
        self._check_at = now + CHECK_EVERY_S
        wall = time.time()
        ended = self.access.ended(wall)
        for grant in ended:
            if min(grant.revoked_at, grant.expires_at) >= self._since:  # others were noted by a hub before this one
                self.note("ticket ended", name=grant.name, why=grant.objection(wall))
        if self.feed is not None and any(grant.name in self._readers for grant in ended):
            self._readers.clear()  # readers whose tickets are still good come again
            self.feed.renew()
        return [(grant.name, grant.objection(wall) or "") for grant in ended]

    def next_deadline(self) -> float:
        """When `ended` should be asked, in the loop's time; tickets expire by wall clock, so it is looked at often."""
        if self._keyring is None or (self._check_at and self.access.next_expiry() == NEVER):
            return NEVER
        return self._check_at

    # ---- the record -----------------------------------------------------------------------------------------

    def note(self, event: str, **fields: object) -> None:
        """Write it to the audit log, and tell whoever reads events."""
        if self._audit is not None:
            self._audit.write(event, **fields)
        self.tell(event, **fields)

    def tell(self, event: str, **fields: object) -> None:
        """Tell whoever reads events."""
        if self.feed is not None:
            self.feed.publish(event, **fields)

    def note_registration(self, request: m.Register, epoch: int, ticket: str, address: str) -> None:
        """Write down who has joined.

        A peer that joins again and again must not push what it did before out of the log.
        """
        self._note_often(
            "registered", ticket, role=request.role, name=request.name[:NOTED], host=request.host[:NOTED],
            pid=request.pid, instance=f"{request.instance:x}", epoch=epoch, address=address or None,
        )  # fmt: skip

    def _note_reader(self, key: bytes, address: str) -> None:
        holder = self.access.holder(key)
        if holder is not None:
            self._readers.add(holder.name)
            self._note_often("events read", holder.name, address=address)

    def _note_often(self, event: str, ticket: str, **fields: object) -> None:
        """Note what the holder of a ticket may do again and again, but not more than so often."""
        if self._audit is None and self.feed is None:
            return
        now = self._loop.now()
        bucket = self._notes.setdefault((event, ticket), Bucket(NOTES_PER_S, now, NOTES_SAVED_S))
        if not bucket.take(now):
            self._unnoted[event, ticket] += 1
            return
        unnoted = self._unnoted.pop((event, ticket), 0)
        self.note(event, **fields, ticket=ticket or None, **({"unnoted": unnoted} if unnoted else {}))

    def close(self) -> None:
        """Nobody comes in any more."""
        self.note("hub stopped")
        if self.feed is not None:
            self.feed.close()
        for sock in list(self._monitors):
            self.unwatch(sock)
        if self._zap is not None:
            self._zap.close()
        if self._audit is not None:
            self._audit.close()
