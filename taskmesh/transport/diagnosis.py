"""Why a hub does not answer, in words for people."""

from __future__ import annotations

import os
import socket
from time import monotonic

from .endpoints import Address

TIMEOUT_S = 2.0


def listens(address: Address) -> bool:
    """Whether anything listens at `address`."""
    try:
        socket.create_connection((address.host, address.port), timeout=TIMEOUT_S).close()
    except OSError:
        return False
    return True


def diagnose(address: Address) -> str:
    """Why the hub at `address` does not answer, as far as a plain connection can tell."""
    if address.scheme == "ipc":
        there = os.path.exists(address.control.removeprefix("ipc://"))
        return "its hub is not running" if there else "there is no hub at that path"
    try:
        socket.create_connection((address.host, address.port), timeout=TIMEOUT_S).close()
    except socket.gaierror as error:
        return f"the name {address.host!r} is not known ({error.strerror})"
    except ConnectionRefusedError:
        return f"nothing listens on {address}; start one with: taskmesh hub --listen {address}"
    except OSError as error:
        return f"{address} cannot be reached ({error.strerror or error}); is a firewall between?"
    return f"something listens on {address}, but it does not answer as a hub does"


SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
GREETING_BYTES = 64
MECHANISM = slice(12, 32)


def mechanism(address: Address) -> str | None:
    """How the hub at a tcp address secures its connections: "CURVE" or "NULL"; None if what is there is no hub.

    It begins a ZMTP 3.1 greeting, and leaves out the part that says how we do it: so the other end has to say it first
    (https://rfc.zeromq.org/spec/37/). Waits for at most `TIMEOUT_S` for each answer.
    """
    try:
        with socket.create_connection((address.host, address.port), timeout=TIMEOUT_S) as connection:
            connection.sendall(SIGNATURE + b"\3\1")
            greeting, end = b"", monotonic() + TIMEOUT_S
            while len(greeting) < GREETING_BYTES and monotonic() < end:  # or byte by byte it could hold us up
                part = connection.recv(GREETING_BYTES - len(greeting))
                if not part:
                    return None
                greeting += part
    except OSError:
        return None
    if len(greeting) < GREETING_BYTES or greeting[0] != SIGNATURE[0] or greeting[9] != SIGNATURE[9]:
        return None
    return greeting[MECHANISM].rstrip(b"\0").decode("ascii", "replace")
