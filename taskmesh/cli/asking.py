"""Asking a hub one question over its control channel, with a ticket or without."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from ..core.access import Role
from ..core.messages import ControlMessage, Refused
from ..errors import HubUnreachable, NoTicket, PeerProtocolError, RegistrationRefused, TicketError
from ..security.finding import find_ticket
from ..security.ticket import Ticket
from ..transport.diagnosis import diagnose, listens
from ..transport.endpoints import Address, parse_address
from .logs import printable
from .options import DEFAULT_HUB

if TYPE_CHECKING:
    from ..transport.handshake import HandshakeWatch
    from ..transport.sockets import Socket


def ask(address: Address, ticket: Ticket | None, message: ControlMessage, timeout: float) -> ControlMessage:
    """The hub's reply.

    Parameters
    ----------
    address
        The hub's.
    ticket
        Who asks; None where there are no keys.
    message
        The question.
    timeout
        How long to wait for the reply, in seconds.

    Raises
    ------
    HubUnreachable
        No answer within `timeout` seconds.
    RegistrationRefused
        The hub refuses this ticket or this question, or what answers is no hub of this release.
    """
    import zmq

    from ..joining import credentials_of
    from ..transport.curve import present
    from ..transport.handshake import HandshakeWatch
    from ..transport.sockets import connect, make
    from ..wire.stream import pack_control, unpack_control

    context = zmq.Context()
    try:
        sock = make(context, zmq.REQ)
        watch = HandshakeWatch(sock, ticket is not None)
        present(sock, credentials_of(ticket) if ticket is not None else None)
        connect(sock, address.control)
        sock.send(pack_control(message))
        reply = unpack_control(_reply(sock, watch, address, ticket is not None, timeout))
    except PeerProtocolError as error:
        raise no_hub(address, str(error)) from error
    finally:
        context.destroy(linger=0)
    if isinstance(reply, Refused):
        raise RegistrationRefused(printable(reply.why))
    return reply


def _reply(sock: Socket, watch: HandshakeWatch, address: Address, ticket_given: bool, timeout: float) -> bytes:
    import zmq

    from ..transport.handshake import explained

    poller = zmq.Poller()
    poller.register(sock, zmq.POLLIN)
    poller.register(watch.monitor, zmq.POLLIN)
    end = time.monotonic() + timeout
    while (left := end - time.monotonic()) > 0:
        ready = dict(poller.poll(math.ceil(left * 1000)))
        if sock in ready:
            data: bytes = sock.recv()
            return data
        why = watch.failure()
        if why is not None:
            why, _ = explained(why, address, ticket_given)
            raise RegistrationRefused(f"no connection with the hub at {address}: {why}")
    raise HubUnreachable(f"no hub answered at {address} within {timeout:g} s: {diagnose(address)}")


def no_hub(address: Address, why: str = "") -> RegistrationRefused:
    """The error that means: what answers is something else."""
    detail = f" ({printable(why)})" if why else ""
    return RegistrationRefused(f"what answers at {address} is no hub of this release{detail}")


def whom_to_ask(
    hub: str | None, explicit: str | None, insecure: bool, least: Role = Role.CLIENT
) -> tuple[Address, Ticket | None]:
    """A hub's address, and the ticket to ask it with: an admin's, or else one of the role `least`, which is told less.

    Parameters
    ----------
    hub
        Its address, if it was given; else it is that of the ticket.
    explicit
        The path of a ticket, if one was given.
    insecure
        Whether to do without.
    least
        A role whose ticket will do.

    Raises
    ------
    HubUnreachable
        There is no ticket, and nobody at the address either, which is the better thing to say.
    TicketError
        There is no ticket, or it cannot be used; or there is one although there are to be no keys.
    """
    from ..joining import NOT_TOGETHER

    if insecure and explicit:
        raise TicketError(NOT_TOGETHER)
    address = parse_address(hub) if hub else None
    usual = address or parse_address(DEFAULT_HUB)
    if insecure or usual.scheme == "ipc":
        return usual, None
    for role in (least,) if explicit else dict.fromkeys((Role.ADMIN, least)):  # an admin's ticket does for a client
        try:
            ticket = find_ticket(address, role, explicit)
        except NoTicket as error:
            missing = error
        else:
            return address or parse_address(ticket.hub), ticket
    if not listens(usual):
        raise HubUnreachable(f"no hub answered at {usual}: {diagnose(usual)}")
    raise missing
