"""Many light daemons in one process: they register, hold what they get for some milliseconds, answer None, leave, die.

They speak the protocol through `transport.Membership`, as real daemons do, but have no plan, no nursery and no runners.
All of them live in one thread with one loop.
"""

from __future__ import annotations

import os
import pickle
import platform
import random
import secrets
import threading
from collections import deque
from collections.abc import Callable

from taskmesh import __version__
from taskmesh.core import messages as m
from taskmesh.core.access import Role
from taskmesh.joining import choose_hub
from taskmesh.transport.loop import Loop
from taskmesh.transport.membership import Membership
from taskmesh.transport.sockets import Context, new_context
from taskmesh.transport.versions import PYTHON

NEVER = float("inf")


class FakeDaemon:
    """One of them. `holds_s`: how long it keeps what it was sent before it answers."""

    def __init__(self, crowd: Crowd, number: int, holds_s: float) -> None:
        self._crowd = crowd
        self._holds_s = holds_s
        self._queue: deque[tuple[float, m.Dispatch]] = deque()
        self._dead = self._leaving = False
        self.welcomed = self.left = False
        self.refused: str | None = None
        self.answered = 0
        register = m.Register(
            "daemon", secrets.randbits(64), 0, 0, 0, 0, f"fake-{number}", platform.node(), os.getpid(), 1,
            __version__, PYTHON,
        )  # fmt: skip
        self.membership = Membership(crowd.context, crowd.loop, crowd.control, register, self, ticket=crowd.ticket)
        crowd.loop.add_part(self)

    # ---- what the hub says ----------------------------------------------------------------------------------

    def on_welcome(self, welcome: m.Registered) -> None:
        """It has joined, perhaps again; a hub that began anew is told that nothing is left of what was."""
        if self.welcomed and not welcome.resume:
            self._queue.clear()
            self.membership.send(m.Inventory([]))
            if self._leaving:  # the hub's goodbye was lost with its lane
                self.membership.send(m.Leaving())
        self.welcomed = True

    def on_refused(self, why: str) -> None:
        """The hub does not want it: it ends."""
        self.refused = why

    def on_lost(self) -> None:
        """It goes on trying."""

    def on_message(self, message: m.LinkMessage) -> None:
        """Work, or goodbye."""
        if isinstance(message, m.Dispatch):
            self._queue.append((self._crowd.loop.now() + self._holds_s, message))
        elif isinstance(message, m.Revoke):
            self._give_back(message)
        elif isinstance(message, m.Goodbye):
            self.left = True

    def _give_back(self, revoke: m.Revoke) -> None:
        """What waits is given back whole; what it does not have any more has been answered."""
        mine = [entry for entry in self._queue if entry[1].fence == revoke.fence]
        for entry in mine:
            self._queue.remove(entry)
        returned = [(entry[1].lo, entry[1].hi) for entry in mine]
        self.membership.send(m.GiveBack(revoke.fence, returned, [] if mine else [(revoke.lo, revoke.hi)]))

    # ---- what the crowd says --------------------------------------------------------------------------------

    def die(self) -> None:
        """Its connections close without a word, as those of a killed process do."""
        self._dead = True
        self._queue.clear()
        self.membership.close(linger_ms=0)

    def leave(self) -> None:
        """Give back what waits, and go."""
        self._leaving = True
        self.membership.send(m.Slots(0))
        while self._queue:
            _, dispatch = self._queue.popleft()
            self.membership.send(m.GiveBack(dispatch.fence, [(dispatch.lo, dispatch.hi)], []))
        self.membership.send(m.Leaving())

    # ---- the loop -------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Answer what was held long enough."""
        if self.left or self.refused is not None:
            self.die()
        if self._dead:
            return
        done: list[m.Finished] = []
        while self._queue and self._queue[0][0] <= now:
            _, d = self._queue.popleft()
            blob = pickle.dumps([None] * (d.hi - d.lo), 5)
            outcome = m.Outcome(d.spec, d.chunk.first, d.lo, d.hi, m.Form.LIST, blob)
            done.append(m.Finished(d.fence, d.session, self._holds_s, outcome))
            self.answered += d.hi - d.lo
        if done:
            self.membership.send(m.Done(done))
        self.membership.on_time(now)
        self.membership.pump(now)

    def next_deadline(self) -> float:
        """When something is due."""
        if self._dead:
            return NEVER
        return min(self.membership.next_deadline(), self._queue[0][0] if self._queue else NEVER)


class Crowd:
    """Fake daemons and their thread.

    Parameters
    ----------
    control
        The hub's address.
    seed
        For how long each holds its work, and which of them are chosen to die or leave.
    """

    def __init__(self, control: str, seed: int = 0) -> None:
        self.control = control
        _, self.ticket = choose_hub(control, None, False, Role.WORKER)
        self.context: Context = new_context()
        self.loop = Loop()
        self._random = random.Random(seed)
        self._numbers = 0
        self._commands: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        self.alive: list[FakeDaemon] = []
        self.leaving: list[FakeDaemon] = []
        self.loop.watch(self._wake_read, self._obey)
        self._thread = threading.Thread(target=self.loop.run, name="fake daemons", daemon=True)
        self._thread.start()

    def join(self, count: int) -> None:
        """So many more begin to join; see `joined`."""

        def begin() -> None:
            for _ in range(count):
                self._numbers += 1
                self.alive.append(FakeDaemon(self, self._numbers, self._random.uniform(0.001, 0.02)))

        self._do(begin)

    def die(self, count: int) -> None:
        """So many die."""

        def begin() -> None:
            for daemon in self._some(count):
                daemon.die()

        self._do(begin)

    def leave(self, count: int) -> None:
        """So many say goodbye; see `gone`."""

        def begin() -> None:
            for daemon in self._some(count):
                daemon.leave()
                self.leaving.append(daemon)

        self._do(begin)

    @property
    def joined(self) -> int:
        """How many are there that the hub has welcomed."""
        return sum(daemon.welcomed for daemon in list(self.alive))

    @property
    def refused(self) -> list[str]:
        """What the hub said to those that it did not want, or has no room for."""
        said = [daemon.refused or daemon.membership.trouble for daemon in list(self.alive) if not daemon.welcomed]
        return [why for why in said if why is not None]

    @property
    def gone(self) -> bool:
        """Whether all that wanted to leave were let go."""
        return all(daemon.left for daemon in list(self.leaving))

    def close(self) -> None:
        """All of them die."""

        def end() -> None:
            for daemon in [*self.alive, *self.leaving]:
                daemon.die()
            self.loop.stopping = True

        self._do(end)
        self._thread.join(10.0)
        self.loop.close()
        self.context.destroy(linger=0)
        for fd in (self._wake_read, self._wake_write):
            os.close(fd)

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _some(self, count: int) -> list[FakeDaemon]:
        chosen = self._random.sample([daemon for daemon in self.alive if daemon.membership.registered], count)
        for daemon in chosen:
            self.alive.remove(daemon)
        return chosen

    def _do(self, command: Callable[[], object]) -> None:
        done = threading.Event()

        def obeyed() -> None:
            command()
            done.set()

        self._commands.append(obeyed)
        os.write(self._wake_write, b"w")
        if not done.wait(20.0):
            raise RuntimeError("the thread of the fake daemons does not answer")

    def _obey(self) -> None:
        os.read(self._wake_read, 4096)
        while self._commands:
            self._commands.popleft()()
