"""Why a connection does not come about, as far as libzmq tells: a socket monitor's events as a sentence for people.

What libzmq 4.3 was seen to do at the connecting side:

- The hub does not know the key (ZAP's 400): one `HANDSHAKE_FAILED_AUTH`, and it does not dial again.
- One side has keys and the other none: `HANDSHAKE_FAILED_PROTOCOL`, and it does not dial again; but before that any
  number of `HANDSHAKE_FAILED_NO_DETAIL`, as long as the other side is faster to hang up.
- The hub's key is another one: `HANDSHAKE_FAILED_NO_DETAIL`, again and again. It also comes from whatever takes a
  connection and drops it, such as a tunnel or a load balancer whose hub is away. So it is believed late, and is not
  final; `explained` finds out more.
"""

from __future__ import annotations

from struct import Struct

import zmq

from .diagnosis import mechanism
from .endpoints import Address
from .sockets import Socket, monitor_of

WATCHED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
EVENT = Struct("=HI")  # number and value; pyzmq's reader of it imports asyncio, which takes as long as all of ours
BELIEVED_AFTER = 3  # failures without detail, one after the other
TEMPORARY = 300  # ZAP's status for "not now", after which libzmq dials again

REFUSED = (
    "the hub does not know this ticket, or it was revoked or has expired; ask whoever runs the hub for a new one: "
    "taskmesh ticket create"
)
REFUSED_WITHOUT = (
    "the hub does not let anybody in without a ticket: give one with --ticket, ticket= or $TASKMESH_TICKET"
)
NO_KEYS_THERE = (
    "a ticket was given, but the hub runs without keys (--insecure), so anybody could answer in its place: say "
    "--insecure (insecure=True) here as well, or start the hub without it"
)
NEEDS_TICKET = (
    "the hub asks for a ticket, and none was given: use --ticket, ticket= or $TASKMESH_TICKET, and no --insecure"
)
OTHER_KEY = (
    "what answers there does not have the key of the hub that this ticket is for: it is another hub, has new keys and "
    "needs new tickets, or this is not the port that the hub prints when it is ready"
)
HANGS_UP = "what answers there ends every connection at once"
LASTING = {REFUSED, REFUSED_WITHOUT, NO_KEYS_THERE, NEEDS_TICKET}
"""What stays so. Anything else a hub has said for now, such as that it has too many peers."""
NO_HUB = f"{HANGS_UP}, as something does that is no hub, or a tunnel whose hub is not running"


def of_ticket(why: str, name: str) -> str:
    """A failure with the name of the ticket in it, for people who may have several."""
    return why.replace("this ticket", f"the ticket {name!r}") if name else why


class HandshakeWatch:
    """Watches the handshakes of one connecting socket.

    Parameters
    ----------
    sock
        The socket, before it is connected. It has no other monitor.
    ticket_given
        Whether it has CURVE keys.
    ends
        Whether to watch for ends of connections as well; attribute `connected` is of no use otherwise.

    Raises
    ------
    AddressError
        No more sockets or files may be opened.
    """

    def __init__(self, sock: Socket, ticket_given: bool, ends: bool = False) -> None:
        self._sock = sock
        self._ticket_given = ticket_given
        self._unexplained = 0
        self._failure: str | None = None
        self.final = False
        """Whether libzmq has given up, so that nothing more will happen on this socket."""
        self.connected = False
        """Whether a handshake has succeeded, and the connection has not ended since."""
        self.monitor = monitor_of(sock, WATCHED | (zmq.EVENT_DISCONNECTED if ends else 0))
        """Readable when there is something for `failure`."""

    def failure(self) -> str | None:
        """Why no connection comes about, in words for people; None while all is well, or it is too early to say.

        It reads what has happened since it was called last, and does not wait.
        """
        while int(self.monitor.get(zmq.EVENTS)) & zmq.POLLIN:
            self._on_event(*EVENT.unpack(self.monitor.recv_multipart(zmq.NOBLOCK)[0]))
        return self._failure

    def _on_event(self, event: int, value: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._unexplained, self._failure, self.final = 0, None, False
            self.connected = True
        elif event == zmq.EVENT_DISCONNECTED:
            self.connected = False
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            if value != TEMPORARY:
                self._fail(REFUSED if self._ticket_given else REFUSED_WITHOUT, final=True)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._fail(NO_KEYS_THERE if self._ticket_given else NEEDS_TICKET, final=True)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._unexplained += 1
            if self._unexplained >= BELIEVED_AFTER:
                self._fail(HANGS_UP, final=False)

    def _fail(self, why: str, final: bool) -> None:
        if not self.final:
            self._failure, self.final = why, final

    def close(self) -> None:
        """Stop watching, before the socket is closed."""
        if not self.monitor.closed:
            self._sock.disable_monitor()
            self.monitor.close(linger=0)


def explained(why: str, address: Address, ticket_given: bool) -> tuple[str, bool]:
    """A failure that came without detail, made exact by asking the other end what it speaks.

    Parameters
    ----------
    why
        What `failure` said, or the hub, which wants to be asked again.
    address
        What the socket is connected to.
    ticket_given
        Whether it has CURVE keys.

    Returns
    -------
    str, bool
        The sentence for people; and whether a hub said it, so that it stays so until somebody changes something. Else
        what answers is no hub, and one may come.

    Notes
    -----
    It waits for the other end, as `mechanism` does.
    """
    if why != HANGS_UP:
        return why, why in LASTING
    spoken = mechanism(address) if address.scheme == "tcp" else None
    if spoken == "CURVE":
        return (OTHER_KEY if ticket_given else NEEDS_TICKET), True
    if spoken == "NULL" and ticket_given:
        return NO_KEYS_THERE, True
    return NO_HUB, False
