"""Several hosts on one machine: network namespaces with a switch between them, whose cables can be pulled.

Each host is a namespace with one interface; a bridge in a namespace of its own joins them. Nothing of this is visible
outside, and all of it goes with `close`. Needs Linux, iproute2 and the right to make namespaces (root): `why_not` says
what is missing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence

NETWORK = "10.213.0."


def why_not() -> str | None:
    """Why there can be no namespaces here; None if there can."""
    if shutil.which("ip") is None:
        return "there is no `ip` (iproute2)"
    if os.geteuid() != 0:
        return "making network namespaces takes root"
    try:
        Hosts([]).close()
    except (subprocess.CalledProcessError, OSError) as error:
        return f"network namespaces are not permitted here ({error})"
    return None


class Hosts:
    """Hosts that see each other.

    Parameters
    ----------
    names
        What to call them, at most 200.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._prefix = f"tm{secrets.token_hex(3)}"
        self._names = list(names)
        self._made: list[str] = []
        self._switch = f"{self._prefix}-switch"
        try:
            self._namespace(self._switch)
            _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
            _ip("-n", self._switch, "link", "set", "bridge", "up")
            for number, name in enumerate(names, 1):
                self._join(number, name)
        except BaseException:
            self.close()
            raise

    def _namespace(self, name: str) -> None:
        _ip("netns", "add", name)
        self._made.append(name)
        _ip("-n", name, "link", "set", "lo", "up")

    def _join(self, number: int, name: str) -> None:
        host, port = f"{self._prefix}-{name}", f"port{number}"
        self._namespace(host)
        _ip("link", "add", port, "netns", self._switch, "type", "veth", "peer", "name", "cable", "netns", host)
        _ip("-n", self._switch, "link", "set", port, "master", "bridge", "up")
        _ip("-n", host, "address", "add", f"{NETWORK}{number}/24", "dev", "cable")
        _ip("-n", host, "link", "set", "cable", "up")

    def address(self, name: str) -> str:
        """The IP address of a host."""
        return f"{NETWORK}{self._names.index(name) + 1}"

    def wire(self) -> list[str]:
        """What to put in front of a command so that it runs in the switch, where all that is sent passes."""
        return ["ip", "netns", "exec", self._switch]

    def command(self, name: str) -> list[str]:
        """What to put in front of a command so that it runs on a host. It keeps its process id."""
        return ["ip", "netns", "exec", f"{self._prefix}-{name}"]

    def cut(self, name: str) -> None:
        """Pull the cable of a host: what is sent is lost, and nobody is told."""
        _ip("-n", self._switch, "link", "set", f"port{self._names.index(name) + 1}", "down")

    def heal(self, name: str) -> None:
        """Plug it in again."""
        _ip("-n", self._switch, "link", "set", f"port{self._names.index(name) + 1}", "up")

    def close(self) -> None:
        """Remove everything. Processes that still run there lose their network with the last of them."""
        while self._made:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", self._made.pop())

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, stdin=subprocess.DEVNULL)
