"""The ledger: outcomes that were reported, and that the hub may still need to be told again.

An acknowledged message is not a settled outcome: the hub that received it may die before anybody else has it. So the
plan keeps each outcome until `Settled` names all of it, or its session is over; a hub that has forgotten this daemon
is offered all of them again, and drops what it knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgpack

from taskmesh.core import messages as m
from taskmesh.core.ranges import Ranges, normal, overlap, without
from taskmesh.errors import LocalProtocolError


def fitting(entry: m.Finished, largest: int) -> list[m.Finished]:
    """An outcome as a hub can be told it that takes at most `largest` bytes: if it has more, each of its tasks is lost.

    Runners keep to what their hub takes; but it may be another one by now, and a task has to end all the same.
    """
    o = entry.outcome
    if len(o.blob) <= largest:
        return [entry]
    report = {"kind": "too large", "bytes": len(o.blob), "tasks": o.hi - o.lo, "limit_bytes": largest}
    blob: bytes = msgpack.packb(report)
    lost = [o._replace(lo=n, hi=n + 1, form=m.Form.LOST, blob=blob) for n in range(o.lo, o.hi)]
    return [entry._replace(outcome=outcome, busy_s=entry.busy_s / len(lost)) for outcome in lost]


class _Kept:
    """An outcome, and what of it is not settled."""

    __slots__ = ("entry", "left")

    def __init__(self, entry: m.Finished) -> None:
        self.entry = entry
        self.left: Ranges = [(entry.outcome.lo, entry.outcome.hi)]


class Ledger:
    """Unsettled outcomes by lease. Attributes: how many `outcomes` there are, and their `bytes` of results."""

    def __init__(self) -> None:
        self._leases: dict[int, dict[int, _Kept]] = {}  # fence: first offset: outcome
        self.outcomes = 0
        self.bytes = 0

    def keep(self, entry: m.Finished) -> None:
        """An outcome is about to be reported."""
        kept = self._leases.setdefault(entry.fence, {})
        if entry.outcome.lo in kept:
            self._free(entry.fence, entry.outcome.lo)
            kept = self._leases.setdefault(entry.fence, {})
        kept[entry.outcome.lo] = _Kept(entry)
        self.outcomes += 1
        self.bytes += len(entry.outcome.blob)

    def settle(self, parts: Iterable[tuple[int, int, int]]) -> None:
        """Parts `(fence, lo, hi)` of leases are not needed any more; they may cut through outcomes."""
        cutting: dict[int, Ranges] = {}
        for fence, lo, hi in parts:
            lease = self._leases.get(fence)
            if lease is None:
                continue
            exact = lease.get(lo)
            if exact is not None and exact.left == [(lo, hi)]:  # the usual case: as it was reported
                self._free(fence, lo)
                continue
            cutting.setdefault(fence, []).append((lo, hi))
        for fence, cuts in cutting.items():
            self._cut(fence, normal(cuts))

    def _cut(self, fence: int, cuts: Ranges) -> None:
        for first, kept in list(self._leases.get(fence, {}).items()):
            kept.left = without(kept.left, overlap(cuts, kept.left[0][0], kept.left[-1][1]))
            if not kept.left:
                self._free(fence, first)

    def forget(self, session: int) -> None:
        """A session is over: nobody wants its outcomes."""
        for fence, lease in list(self._leases.items()):
            for first, kept in list(lease.items()):
                if kept.entry.session == session:
                    self._free(fence, first)

    def entries(self) -> Iterator[m.Finished]:
        """Everything that is kept, to be offered again."""
        for lease in self._leases.values():
            for kept in lease.values():
                yield kept.entry

    def _free(self, fence: int, first: int) -> None:
        lease = self._leases[fence]
        self.bytes -= len(lease.pop(first).entry.outcome.blob)
        self.outcomes -= 1
        if not lease:
            del self._leases[fence]

    def check(self) -> None:
        """Count again.

        Raises
        ------
        LocalProtocolError
            The counters disagree with what is kept, or something is kept that is settled.
        """
        entries = list(self.entries())
        if len(entries) != self.outcomes or sum(len(e.outcome.blob) for e in entries) != self.bytes:
            raise LocalProtocolError(f"{len(entries)} outcomes are kept, {self.outcomes} on the books")
        if not all(self._leases.values()) or not all(k.left for lease in self._leases.values() for k in lease.values()):
            raise LocalProtocolError("a settled outcome is still kept")
