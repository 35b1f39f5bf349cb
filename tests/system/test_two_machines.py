"""Hub, worker and client on machines of their own, which know each other by tickets alone; what is on the wire."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .namespaces import Hosts, why_not
from .processes import Started, until

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"no network namespaces: {why_not()}")

CLIENT = """
    import sys
    from taskmesh import Mesh

    def echo(value):
        return value

    with Mesh({arguments}) as mesh:
        assert [f.result(60) for f in [mesh.submit(pow, n, 2) for n in range(200)]] == [n * n for n in range(200)]
        marker = bytes.fromhex(sys.argv[1])
        for _ in range(20):
            assert mesh.submit(echo, marker).result(60) == marker
        print("done by", mesh.submit(lambda: __import__("os").uname().nodename).result(60))
    """


class Machines:
    """Three hosts, each with a home of its own, and what runs there."""

    def __init__(self, hosts: Hosts, directory: Path) -> None:
        self._hosts = hosts
        self._directory = directory
        self._started: list[Started] = []
        self.hub = f"tcp://{hosts.address('hub')}:5555"
        for name in ("hub", "worker", "client", "wire"):
            (directory / name).mkdir()

    def home(self, name: str) -> Path:
        """The directory of a host."""
        return self._directory / name

    def start(self, host: str, *arguments: str) -> Started:
        """Run Python on a host."""
        home = self.home(host)
        before = self._hosts.wire() if host == "wire" else self._hosts.command(host)
        apart = {"HOME": str(home), "XDG_CONFIG_HOME": f"{home}/config", "XDG_STATE_HOME": f"{home}/state"}
        started = Started([*arguments], home, before=before, environment=apart)
        self._started.append(started)
        return started

    def taskmesh(self, host: str, *arguments: str) -> Started:
        """Run the command there."""
        return self.start(host, "-m", "taskmesh", *arguments)

    def ticket(self, role: str, name: str) -> None:
        """Make one at the hub's machine, and bring it to another, which is called as the role is."""
        made = self.taskmesh("hub", "ticket", "create", "--role", role, "--name", name)
        assert made.ends() == 0, made.output
        shutil.copy2(self.home("hub") / f"{name}.ticket", self.home(role))

    def sniff(self) -> Path:
        """Begin to write down what is on the wire."""
        path = self.home("wire") / "captured"
        self.start("wire", str(Path(__file__).with_name("sniffer.py")), str(path)).says("sniffing")
        return path

    def client(self, arguments: str, marker: bytes) -> str:
        """What a client prints that has the marker travel as an argument and as a result."""
        script = self.home("client") / "script.py"
        script.write_text("\n".join(line[4:] for line in CLIENT.format(arguments=arguments).splitlines()))
        client = self.start("client", str(script), marker.hex())
        assert client.ends(120) == 0, self.output()
        return client.output

    def output(self) -> str:
        """What all have printed."""
        return "\n".join(f"--- {started.process.args!r}:\n{started.output}" for started in self._started)

    def end(self) -> None:
        """End everything."""
        for started in reversed(self._started):
            started.end_now()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """A hub's, a worker's and a client's."""
    with Hosts(["hub", "worker", "client"]) as hosts:
        machines = Machines(hosts, tmp_path)
        try:
            yield machines
        finally:
            machines.end()


def on_the_wire(captured: Path, marker: bytes) -> bool:
    """Whether it passed, once the end of the traffic was written down."""
    size = [-1]

    def still() -> bool:
        size.append(captured.stat().st_size)
        return size[-1] == size[-2] > 0

    until(still, "nothing more is written")
    return marker in captured.read_bytes()


def test_two_machines_need_nothing_but_a_ticket_and_nobody_can_read_along(machines: Machines) -> None:
    marker = secrets.token_bytes(32)
    machines.taskmesh("hub", "hub", "--listen", machines.hub).says("ready at tcp://")
    machines.ticket("worker", "farm")
    machines.ticket("client", "laptop")
    captured = machines.sniff()
    machines.taskmesh("worker", "worker", "--ticket", "farm.ticket").says("has joined")
    assert "done by" in machines.client("ticket='laptop.ticket'", marker)
    assert not on_the_wire(captured, marker)
    assert on_the_wire(captured, b"CURVE"), "so it was seen how they begin"


def test_without_keys_everybody_can_read_along(machines: Machines) -> None:
    marker = secrets.token_bytes(32)
    machines.taskmesh("hub", "hub", "--listen", machines.hub, "--insecure").says("ready at tcp://")
    captured = machines.sniff()
    machines.taskmesh("worker", "worker", machines.hub, "--insecure").says("has joined")
    assert "done by" in machines.client(f"{machines.hub!r}, insecure=True", marker)
    assert on_the_wire(captured, marker)


def test_another_machine_gets_in_with_no_ticket_in_no_way(machines: Machines) -> None:
    machines.taskmesh("hub", "hub", "--listen", machines.hub).says("ready at tcp://")
    for arguments, code in (
        (["worker", machines.hub], 7),
        (["worker", machines.hub, "--insecure"], 4),
        (["status", machines.hub], 7),
        (["status", machines.hub, "--insecure"], 4),
    ):
        refused = machines.taskmesh("worker", *arguments)
        assert refused.ends() == code, refused.output
        assert "ticket" in refused.output
