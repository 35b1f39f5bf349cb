"""A hostile hub: what clients and workers without keys are told by whoever answers at the address that they were given.

(With a ticket they know the hub by its key, so this takes the key. Then it can do all of this as well.)
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import zmq

from taskmesh import __version__
from taskmesh.core import messages as m
from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.core.identity import digest_of
from taskmesh.core.limits import BODY
from taskmesh.errors import PeerProtocolError
from taskmesh.transport.sockets import Socket, new_context
from taskmesh.wire.messages import encode
from taskmesh.wire.stream import LAST, MORE, pack_control, unpack_control

from ..system.processes import Started, until
from .insider import ENVELOPE

LARGEST = 1 << 20
MOST_BYTES = 150 << 20
LANE_S = 10.0
ENDS_S = 90.0  # a worker whose outcomes are not settled waits for a minute
VICTIM = """
import sys
from taskmesh import Mesh, TaskmeshError, wait
try:
    with Mesh(sys.argv[1], insecure=True, connect_timeout=5) as mesh:
        futures = [mesh.submit(len, b"x") for _ in range(20)]
        print("joined", flush=True)
        wait(futures, timeout=float(sys.argv[2]))
        mesh.shutdown(wait=False, cancel_futures=True)
except (TaskmeshError, TimeoutError) as error:
    print("told:", type(error).__name__, str(error)[:200])
print("survived", flush=True)
"""

Answer = Callable[["Impostor", m.ControlMessage], bytes]
Speech = Callable[["Impostor", Socket, m.Registered], None]


class Impostor:
    """A hub in a thread of its own that answers as it likes.

    Parameters
    ----------
    answer
        What it replies to a request.
    speech
        What it says on the lane of whoever registers.
    """

    def __init__(self, answer: Answer | None = None, speech: Speech | None = None, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.incarnation = secrets.randbits(64)
        self.epoch = 0
        self._answer = answer or Impostor.good
        self._speech = speech
        self._context = new_context()
        self.said = 0
        self.met: set[str] = set()  # roles of who has asked to register
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._control = self._context.socket(zmq.REP)
        self._inbox = self._context.socket(zmq.PULL)
        port = self._control.bind_to_random_port("tcp://127.0.0.1")
        self.inbox = f"tcp://127.0.0.1:{self._inbox.bind_to_random_port('tcp://127.0.0.1')}"
        self.address = f"tcp://127.0.0.1:{port}"
        self._begin(self._serve)

    def _begin(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while not self.stopping.is_set():
            while self._inbox.poll(0):
                self._inbox.recv_multipart()
            if self._control.poll(20):
                frame = self._control.recv()
                try:
                    request: m.ControlMessage = unpack_control(frame)
                except PeerProtocolError:
                    request = m.StatusRequest()
                if isinstance(request, m.Register):
                    self.met.add(request.role)
                self._control.send(self._answer(self, request))
                self.said += 1
        self._control.close(linger=0)
        self._inbox.close(linger=0)

    def good(self, request: m.ControlMessage) -> bytes:
        """What a hub would answer."""
        if isinstance(request, m.Register):
            return pack_control(self.welcome())
        if isinstance(request, m.Heartbeat):
            return pack_control(m.HeartbeatReply(True, 0, 0, 0))
        return pack_control(m.Refused("what?"))

    def welcome(self) -> m.Registered:
        """A registration, with a lane on which something is said."""
        self.epoch += 1
        lane: Socket = self._context.socket(zmq.PUSH)
        lane.setsockopt(zmq.LINGER, 0)
        endpoint = f"tcp://127.0.0.1:{lane.bind_to_random_port('tcp://127.0.0.1')}"
        made = m.Registered(self.incarnation, self.epoch, False, 0, endpoint, self.inbox, __version__, LARGEST)
        self._begin(self._speak, lane, made)
        return made

    def _speak(self, lane: Socket, made: m.Registered) -> None:
        try:
            if self._speech is not None and lane.poll(round(LANE_S * 1000), zmq.POLLOUT):
                self._speech(self, lane, made)
            self.stopping.wait()
        finally:
            lane.close(linger=0)

    def put(self, lane: Socket, frame: bytes) -> bool:
        """Say a frame; False: the peer does not take any, or it is over."""
        if self.stopping.is_set() or not lane.poll(500, zmq.POLLOUT):
            return False
        try:
            lane.send(frame, zmq.NOBLOCK)
        except zmq.Again:  # it has just gone
            return False
        self.said += 1
        return True

    def close(self) -> None:
        """It is over."""
        self.stopping.set()
        for thread in self._threads:
            thread.join(5.0)
        self._context.destroy(linger=0)


def frame(made: m.Registered, seq: int, body: bytes, flags: int = LAST, ack: int = 0) -> bytes:
    """Of a lane."""
    return ENVELOPE.pack(1, flags, made.epoch, made.incarnation, seq, ack) + body


# ---- what it says ---------------------------------------------------------------------------------------------------

ENDPOINTS = [
    "ipc:///nowhere/at/all", "ipc:///etc/passwd", "ipc://" + "x" * 250, "tcp://127.0.0.1:1", "tcp://127.0.0.1:99999",
    "tcp://255.255.255.255:5555", "tcp://*:*", "tcp://", "tcp://[::1", "inproc://lane", "", "http://hub", "tcp://\n:5",
]  # fmt: skip


def garbage_replies(hub: Impostor, request: m.ControlMessage) -> bytes:
    return hub.random.randbytes(hub.random.randrange(2000))


def large_replies(hub: Impostor, request: m.ControlMessage) -> bytes:
    return bytes(2 << 20)


def other_replies(hub: Impostor, request: m.ControlMessage) -> bytes:
    """Good ones, to something else."""
    others: list[m.ControlMessage] = [
        m.HeartbeatReply(False, 9, 9, 9), m.StatusReply(b"{}"), m.Tickets(b"[]"), m.ListTickets(),
    ]  # fmt: skip
    return pack_control(hub.random.choice(others))


def absurd_endpoints(hub: Impostor, request: m.ControlMessage) -> bytes:
    if not isinstance(request, m.Register):
        return hub.good(request)
    hub.epoch += 1
    places = [hub.random.choice([*ENDPOINTS, hub.inbox]) for _ in range(2)]
    lane, inbox = places if hub.epoch % 2 else (ENDPOINTS[hub.epoch // 2 % len(ENDPOINTS)], hub.inbox)
    made = m.Registered(hub.incarnation, hub.epoch, hub.epoch % 3 == 0, 2**64 - 1, lane, inbox, __version__, LARGEST)
    return b"\x01" + encode(made)


def forgets_at_once(hub: Impostor, request: m.ControlMessage) -> bytes:
    """Every heartbeat is answered with: who are you?"""
    return pack_control(m.HeartbeatReply(False, 0, 0, 0)) if isinstance(request, m.Heartbeat) else hub.good(request)


def refuses_for_now(hub: Impostor, request: m.ControlMessage) -> bytes:
    return pack_control(m.Refused("come again\x1b[2J" * 100, again=True))


def wild_cursors(hub: Impostor, request: m.ControlMessage) -> bytes:
    if isinstance(request, m.Heartbeat):
        return pack_control(m.HeartbeatReply(True, hub.random.getrandbits(64), hub.random.getrandbits(64), 2**64 - 1))
    return hub.good(request)


def malformed_frames(hub: Impostor, lane: Socket, made: m.Registered) -> None:
    digest = digest_of(b"x")
    outcome = m.Outcome(1, 0, 0, 1, m.Form.LIST, b"x")
    good = [encode(message) for message in (
        m.Body(digest, b"x"), m.Results([outcome] * 5), m.Cancelled(1, 0, [(0, 1)]), m.Rejected(1, 0, "no"),
        m.Revoke(1, 0, 5, True), m.Forget(1), m.Settled([(1, 0, 5)]), m.Goodbye("bye", True), m.Leaving(),
    )]  # fmt: skip
    for n in range(20_000):
        data = bytearray(good[n % len(good)])
        data[hub.random.randrange(len(data))] = hub.random.randrange(256)
        cut = frame(made, n + 1, bytes(data), hub.random.choice([0, 0, 0, 0, 1, 2, 3, 9]))
        if not hub.put(lane, cut if n % 9 else cut[: hub.random.randrange(len(cut))]):
            return


def endless_message(hub: Impostor, lane: Socket, made: m.Registered) -> None:
    for n in range(1200):  # of 256 KiB each
        if not hub.put(lane, frame(made, n + 1, bytes(BODY), MORE)):
            return


def false_results(hub: Impostor, lane: Socket, made: m.Registered) -> None:
    """Outcomes whose blobs are none, of tasks that there are and that there are not."""
    blobs = [b"", b"\x80\x05.", b"garbage", bytes(1000), b"\xff\xff\xff\xff" * 10, b"\x80\x05]\x94.", b"\x95" * 500]
    for n in range(3000):
        form = list(m.Form)[n % 5]
        lo = n // 5 % 20
        outcome = m.Outcome(1, 0, lo, lo + 1, form, blobs[n % len(blobs)])
        if not hub.put(lane, frame(made, n + 1, encode(m.Results([outcome])))):
            return


def false_work(hub: Impostor, lane: Socket, made: m.Registered) -> None:
    """Functions and arguments that are no pickles, chunks of chunks, functions that never come."""
    body = b"no pickle at all"
    digest = digest_of(body)
    hub.put(lane, frame(made, 1, encode(m.Body(digest, body))))
    chunk = Chunk(0, 0, 50, pack_sizes([4] * 50), b"", 1, b"none" * 50)
    for n in range(300):
        d = digest if n % 3 else n.to_bytes(16, "little")
        work = m.Dispatch(n, 1, n % 7, "f\x1b[2J", d, b"", 2**31 - 1, n % 2 == 0, 0, 50, m.NO_LIMITS, chunk)
        if not hub.put(lane, frame(made, n + 2, encode(work))):
            return
        if n % 10 == 9:
            hub.put(lane, frame(made, n + 2, encode(m.Revoke(n, 0, 50, True))))


ACTS: dict[str, tuple[Answer | None, Speech | None]] = {
    "garbage replies": (garbage_replies, None),
    "replies of 2 MiB": (large_replies, None),
    "replies to something else": (other_replies, None),
    "absurd endpoints": (absurd_endpoints, None),
    "forgets at once": (forgets_at_once, None),
    "refuses for now": (refuses_for_now, None),
    "wild cursors": (wild_cursors, None),
    "malformed frames": (None, malformed_frames),
    "an endless message": (None, endless_message),
    "false results": (None, false_results),
    "false work": (None, false_work),
}


def perform(name: str, directory: Path, seconds: float) -> list[str]:
    """Let a client and a worker without keys join such a hub; returns what was wrong with them."""
    hub = Impostor(*ACTS[name])
    victims = {
        "worker": Started(["-m", "taskmesh", "worker", hub.address, "--insecure", "-n", "1"], directory),
        "client": Started(["-c", VICTIM, hub.address, str(seconds)], directory),
    }
    try:
        until(lambda: len(hub.met) == len(victims), f"{name}: both have come", 60.0)
        wrong = _watch(victims, seconds)
        for who, victim in victims.items():
            if victim.process.poll() is None:
                victim.process.terminate()
            try:
                victim.process.wait(ENDS_S)
            except Exception:
                wrong.append(f"{who} does not end")
            if who == "worker" and ("Traceback" in victim.output or "Assertion" in victim.output):
                wrong.append(f"worker: {victim.output[-1500:]}")
            elif who == "client" and ("Traceback" in victim.output or "bug in taskmesh" in victim.output):
                wrong.append(f"client: {victim.output[-1500:]}")
            if len(victim.output) > 64 * 1024:
                wrong.append(f"{who}: {len(victim.output):,} characters of log")
        return [f"{name}: {text}" for text in wrong]
    finally:
        for victim in victims.values():
            victim.end_now()
        hub.close()


def _watch(victims: dict[str, Started], seconds: float) -> list[str]:
    """For some time; memory, and processor time if nothing happens any more."""
    wrong: set[str] = set()
    first: dict[str, int] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for who, victim in victims.items():
            try:
                rss = psutil.Process(victim.process.pid).memory_info().rss
            except psutil.Error:
                continue
            if rss - first.setdefault(who, rss) > MOST_BYTES:
                wrong.add(f"{who} took more than {MOST_BYTES >> 20} MiB more")
        threading.Event().wait(0.05)
    return sorted(wrong)
