"""A hub with keys on loopback, at work for an innocent client with an innocent worker, and what can be seen of it.

Whatever a test tries there, these two go on as if nothing had happened: see `Guarded.innocent`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from taskmesh import Future, Mesh
from taskmesh.core import messages as m
from taskmesh.core.access import Role
from taskmesh.security.ticket import Ticket, read_ticket, write_ticket

from .processes import Fleet, Started, until
from .raw import Keys, Raw, RawPeer, keys_of, new_keys
from .tasks import double, hold

COUNTED = ("refused_requests", "refused_connections", "refused_peers", "dropped_frames")


class Guarded:
    """A fleet whose hub has keys, the tickets that it made, and raw sockets to attack it with.

    Parameters
    ----------
    fleet
        A hub.
    raw
        Sockets to it.
    directory
        For tasks that wait there until they are let go.
    """

    def __init__(self, fleet: Fleet, raw: Raw, directory: Path) -> None:
        self.fleet = fleet
        self.directory = directory
        self.raw = raw
        port = fleet.address.rpartition(":")[2]
        [self.keys_directory] = (Path(os.environ["XDG_CONFIG_HOME"]) / "taskmesh").glob(f"*-{port}")
        self.admin, self.client, self.worker = (self.ticket(role) for role in ("admin", "client", "worker"))

    @functools.cached_property
    def submit(self) -> str:
        """Where clients send to."""
        return self.joins("client").welcome.inbox

    @functools.cached_property
    def sink(self) -> str:
        """Where workers send to."""
        return self.joins("worker").welcome.inbox

    # ---- tickets --------------------------------------------------------------------------------------------

    def ticket(self, name: str) -> Ticket:
        """One of the hub's own tickets."""
        return read_ticket(self.keys_directory / f"{name}.ticket")

    def create(self, name: str, role: str, valid_s: int = 0) -> Ticket:
        """A new ticket, by the admin's."""
        keys = new_keys(self.admin.hub_key)
        reply = self.raw.ask(m.CreateTicket(name, role, keys.raw, valid_s), keys_of(self.admin))
        assert isinstance(reply, m.Tickets), reply
        return Ticket(self.fleet.address, keys.hub, keys.public, keys.secret, Role(role), name)

    def file(self, ticket: Ticket) -> Path:
        """A ticket as a file."""
        path = self.directory / f"{ticket.name}.ticket"
        write_ticket(path, ticket)
        return path

    def revoke(self, name: str) -> None:
        """By the admin's ticket."""
        reply = self.raw.ask(m.RevokeTicket(name), keys_of(self.admin))
        assert isinstance(reply, m.Tickets), reply

    def joins(self, role: str, ticket: Ticket | None = None, slots: int = 0) -> RawPeer:
        """A raw peer with a ticket for `client` or `worker`: as such, it does what it may."""
        ticket = ticket or {"client": self.client, "worker": self.worker, "admin": self.admin}[role]
        return self.raw.join(ticket, "daemon" if role == "worker" else "client", slots)

    # ---- what is seen ---------------------------------------------------------------------------------------

    def document(self, ticket: Ticket | None = None) -> dict[str, Any]:
        """The hub's status, as the holder of a ticket sees it; usually an admin.

        The hub shows the same one for a while. This one was made when it was asked for, or later.
        """
        keys = keys_of(ticket or self.admin)
        shown: list[dict[str, Any]] = []

        def another() -> bool:
            reply = self.raw.ask(m.StatusRequest(), keys)
            assert isinstance(reply, m.StatusReply), reply
            shown.append(json.loads(reply.document))
            return bool(shown[-1]["uptime_s"] != shown[0]["uptime_s"])

        until(another, "a new status")
        return shown[-1]

    def session(self, peer: RawPeer) -> dict[str, Any]:
        """The session of a raw client, as the status has it."""
        [session] = [s for s in self.document()["sessions"] if s["pid"] == peer.pid]
        return session  # type: ignore[no-any-return]

    def audit(self, event: str | None = None) -> list[dict[str, Any]]:
        """The lines of the audit log, or those of one kind."""
        lines = (self.keys_directory / "audit.jsonl").read_text().splitlines()
        entries: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [entry for entry in entries if event in (None, entry["event"])]

    @contextlib.contextmanager
    def counts(self, what: str, times: int = 1, *, more: bool = False) -> Iterator[None]:
        """What happens in the block is counted so often in the status, or more often, and nothing else is."""
        before = self.document()
        yield
        until(lambda: self.document()[what] >= before[what] + times, f"{what} rises by {times}", 20)
        after = self.document()
        risen = {name: after[name] - before[name] for name in COUNTED if after[name] != before[name]}
        assert risen == {what: max(times, risen[what]) if more else times}, self.fleet.output()

    def refused(self, request: m.ControlMessage, keys: Keys) -> str:
        """The reason of the hub's refusal of a request."""
        reply = self.raw.ask(request, keys)
        assert isinstance(reply, m.Refused), reply
        assert not reply.again
        return reply.why

    # ---- the innocent ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def innocent(self) -> Iterator[Innocent]:
        """A real worker and a real client at work, which notice nothing of what happens in the block."""
        worker = self.fleet.worker()
        with Mesh(self.fleet.address) as mesh:
            innocent = Innocent(self, mesh, worker)
            try:
                innocent.begins()
                yield innocent
                innocent.ends()
            finally:
                innocent.let_go()


class Innocent:
    """A client and a worker that do nothing but work. `held`: a task of theirs that runs until `ends`."""

    def __init__(self, guarded: Guarded, mesh: Mesh, worker: Started) -> None:
        self.mesh = mesh
        self.worker = worker
        self._guarded = guarded
        self._futures: list[Future[int]] = []
        self.held: Future[str]

    def begins(self) -> None:
        """Tasks have run, one runs, others wait behind it."""
        assert self.mesh.submit(double, 21).result(20) == 42
        self.held = self.mesh.submit(hold, str(self._guarded.directory), "held")
        until((self._guarded.directory / "held.started").exists, "it runs")
        self._futures = [self.mesh.submit(double, n) for n in range(500)]
        self._registrations = self._registered()

    @property
    def session(self) -> int:
        """The number of the client's session, as workers know it."""
        return self.mesh._client.instance

    @property
    def specs(self) -> list[int]:
        """The numbers of its functions."""
        return list(self.mesh._client.session.specs)

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """Those of its chunks that have not ended: spec, and first task."""
        with self.mesh._client.lock:
            specs = self.mesh._client.session.specs.values()
            return [(spec.number, first) for spec in specs for first in spec.sent]

    @property
    def pids(self) -> tuple[int, int]:
        """The processes of client and worker."""
        return os.getpid(), self.worker.process.pid

    def _registered(self) -> list[dict[str, Any]]:
        entries = self._guarded.audit("registered")
        return [e for e in entries if e["pid"] in self.pids and e["ticket"] in ("client", "worker")]

    def let_go(self) -> None:
        """The task that runs may end."""
        (self._guarded.directory / "held.go").touch()

    def ends(self) -> None:
        """Everything comes out right; nothing ran twice, and neither had to register again."""
        assert not self.held.done()
        self.let_go()
        assert self.held.result(30) == "held"
        assert [future.result(30) for future in self._futures] == [2 * n for n in range(500)]
        assert list(self.mesh.map(double, range(1000))) == [2 * n for n in range(1000)]
        assert (self._guarded.directory / "held.started").read_text().count("\n") == 1
        assert self._registered() == self._registrations, self._guarded.fleet.output()


def eventually(answer: Callable[[], object], expected: object, what: str) -> None:
    """Wait until `answer()` is what is expected."""
    until(lambda: answer() == expected, f"{what}: {expected}", 20)
