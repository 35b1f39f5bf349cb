"""Addresses: what a user may write, and which endpoints follow from it."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from typing import NamedTuple

from ..core.access import CONTROL, EVENTS, SINK, SUBMIT
from ..errors import AddressError

DEFAULT_PORT = 5555
LANE_PORTS = (5600, 6599)
MAX_IPC_PATH = 103
CHANNELS = {CONTROL: "c", SUBMIT: "s", SINK: "r", EVENTS: "e"}
"""A hub's channels, in the order of their ports, and what their sockets are called in an ipc directory."""


class Address(NamedTuple):
    """`tcp://host:port` of a hub's control channel, or the directory of an `ipc://` one (port 0)."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        if self.scheme == "ipc":
            return f"ipc://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"

    @property
    def control(self) -> str:
        """The endpoint of the control channel."""
        return self.channel(CONTROL)

    def channel(self, name: str) -> str:
        """The endpoint of one of the `CHANNELS`. They have consecutive ports; with port 0 each has any free one."""
        if self.scheme == "ipc":
            return f"ipc://{self.host}/{CHANNELS[name]}"
        return str(self._replace(port=self.port + list(CHANNELS).index(name) if self.port else 0))

    def lane(self, number: int) -> str:
        """The endpoint of a lane: `number` is its port (0: any free one), or its name in an ipc directory."""
        return f"ipc://{self.host}/l{number}" if self.scheme == "ipc" else str(self._replace(port=number))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can be at the other end."""
        if self.scheme == "ipc" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def is_socket_name(name: str) -> bool:
    """Whether a file in an ipc directory is called as a channel or a lane of a hub is."""
    return name in CHANNELS.values() or re.fullmatch(r"l\d+", name) is not None


def parse_address(text: str, *, port_zero: bool = False) -> Address:
    """Read what a user wrote: `tcp://host:port`, `host:port`, `host`, or `ipc:///directory`.

    Parameters
    ----------
    text
        The address; without a port it means 5555.
    port_zero
        Whether this is where to listen: port 0 ("pick a free one") and host * ("every address") make sense there.

    Raises
    ------
    AddressError
        It is not an address; the message says what one looks like.
    """
    example = "write tcp://HOST:PORT, for example tcp://127.0.0.1:5555"
    scheme, mark, rest = text.strip().partition("://")
    if not mark:
        scheme, rest = "tcp", text.strip()
    if scheme == "ipc":
        if not rest.startswith("/"):
            raise AddressError(f"{text!r} is not an address: ipc:// needs an absolute path of a directory")
        if "\0" in rest or any("\ud800" <= c <= "\udc7f" or "\udd00" <= c <= "\udfff" for c in rest):
            raise AddressError(f"{text!r} is not an address: no path can hold some of its characters")
        if len(os.fsencode(rest)) + 6 > MAX_IPC_PATH:
            raise AddressError(f"{text!r} is too long: a socket's path has at most {MAX_IPC_PATH} bytes")
        return Address("ipc", rest.rstrip("/") or "/", 0)
    if scheme != "tcp":
        raise AddressError(f"{text!r} is not an address: unknown scheme {scheme!r}; {example}")
    host, port_text = _split(rest)
    if not host or any(c.isspace() or c in "/;,@[]" for c in host):
        raise AddressError(f"{text!r} is not an address: no host; {example}")
    if ":" in host and not _is_ipv6(host):
        raise AddressError(
            f"{text!r} is not an address: {host!r} has too many colons, and is no IPv6 address; {example}"
        )
    if host == "*" and not port_zero:
        raise AddressError(
            f"{text!r} is every address of a hub's machine: name the one by which to reach it; {example}"
        )
    if port_text and not (port_text.isascii() and port_text.isdecimal() and len(port_text) <= 5):
        raise AddressError(f"{text!r} is not an address: {port_text!r} is not a port; {example}")
    port = int(port_text) if port_text else DEFAULT_PORT
    if not (0 if port_zero else 1) <= port <= 65535:
        raise AddressError(f"{text!r} is not an address: a port is between 1 and 65535, not {port}")
    return Address("tcp", host, port)


def _split(rest: str) -> tuple[str, str]:
    if rest.startswith("["):
        host, _, after = rest[1:].partition("]")
        return host, after.removeprefix(":")
    if rest.count(":") > 1:
        return rest, ""  # a bare IPv6 address
    host, _, port = rest.partition(":")
    return host, port


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def parse_ports(text: str) -> tuple[int, int]:
    """Read a range of ports, `5600-6599`.

    Raises
    ------
    AddressError
        It is not one.
    """
    first, _, last = text.partition("-")
    try:
        low, high = int(first), int(last or first)
    except ValueError:
        raise AddressError(f"{text!r} is not a range of ports; write for example 5600-6599") from None
    if not 1 <= low <= high <= 65535:
        raise AddressError(f"{text!r} is not a range of ports between 1 and 65535, smaller first")
    return low, high


def reached(endpoint: str, by: str) -> str:
    """Where an endpoint that a hub has named is reached by a peer that came to it by another of its endpoints.

    A hub that listens on every address names none: it is the one that we came by.
    """
    head, _, port = endpoint.rpartition(":")
    if head in ("tcp://0.0.0.0", "tcp://[::]"):
        return f"{by.rpartition(':')[0]}:{port}"
    return endpoint


def foreign(endpoint: str) -> str | None:
    """Why whoever answers at an ipc endpoint may be another user: its directory is theirs, or they can change it.

    None if it is this user's, or root's, or not there; and for every other kind of endpoint, where keys say who it is.
    """
    if not endpoint.startswith("ipc:"):
        return None
    directory = os.path.dirname(endpoint.removeprefix("ipc://"))
    try:
        status = os.stat(directory)
    except OSError:
        return None
    if status.st_uid not in (os.geteuid(), 0):
        return f"the directory {directory} belongs to another user (uid {status.st_uid}), whose hub could be anything"
    if stat.S_IMODE(status.st_mode) & 0o022:
        return (
            f"others may write to {directory}, and so could answer there in place of the hub: a hub has a directory of "
            f"its own (mode 0700)"
        )
    return None
