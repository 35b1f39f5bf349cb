"""Why a hub does not answer, in words for people."""

from __future__ import annotations

import os
import socket

from .endpoints import Address

TIMEOUT_S = 2.0


def diagnose(address: Address) -> str:
    """Why the hub at `address` does not answer, as far as a plain connection can tell."""
    if address.scheme == "ipc":
        return "there is no hub at that path" if not os.path.exists(f"{address.host}/c") else "its hub is not running"
    try:
        socket.create_connection((address.host, address.port), timeout=TIMEOUT_S).close()
    except socket.gaierror as error:
        return f"the name {address.host!r} is not known ({error.strerror})"
    except ConnectionRefusedError:
        return f"nothing listens on {address}; start one with: taskmesh hub --listen {address}"
    except OSError as error:
        return f"{address} cannot be reached ({error.strerror or error}); is a firewall between?"
    return f"something listens on {address}, but it does not answer as a hub does"
