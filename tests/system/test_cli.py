"""The command line, as people and service managers use it: real processes, real signals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from taskmesh import HubUnreachable, Mesh, RegistrationRefused, __version__

from .processes import Started, alive, free_ports, until

ROOT = Path(__file__).parents[2]
ADDRESS = re.compile(r"ready at (\S+)")
NO_HUB = "tcp://127.0.0.1:1"


class Fleet:
    """Starts hubs and workers, and ends what a test has left running."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[Started] = []

    def start(self, *arguments: str) -> Started:
        """`taskmesh …`, in the test's directory."""
        started = Started(["-m", "taskmesh", *arguments], self.directory)
        self._started.append(started)
        return started

    def hub(self, *options: str, listen: str = "tcp://127.0.0.1:0") -> tuple[Started, str]:
        """A hub that is ready, and its address."""
        hub = self.start("hub", "--listen", listen, *options)
        hub.says("ready at")
        found = ADDRESS.search(hub.output)
        assert found is not None, hub.output
        return hub, found.group(1)

    def worker(self, address: str, *options: str) -> Started:
        """A worker that has joined."""
        worker = self.start("worker", address, *options)
        worker.says("has joined")
        return worker

    def end(self) -> None:
        """Workers first, because the hub that they say goodbye to is the first that was started."""
        for started in reversed(self._started):
            started.end_now()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Hubs and workers of one test."""
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.end()


@pytest.fixture
def meshes() -> Iterator[Callable[[str], Mesh]]:
    """Sessions at a hub, closed when the test is over, whatever has become of the hub."""
    with ExitStack() as stack:

        def join(address: str) -> Mesh:
            mesh = Mesh(address)
            stack.callback(mesh.shutdown, cancel_futures=True)
            return mesh

        yield join


def taskmesh(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as a script would: no terminal."""
    foreign = ("TASKMESH_", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS")
    inherited = {k: v for k, v in os.environ.items() if k.startswith("TASKMESH_TEST") or not k.startswith(foreign)}
    return subprocess.run(
        [sys.executable, "-m", "taskmesh", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
        env={**inherited, "COLUMNS": "200", "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **environment},
    )


def one_line(finished: subprocess.CompletedProcess[str]) -> str:
    """The only line of an error, which is on stderr."""
    assert finished.stdout == ""
    lines = finished.stderr.splitlines()
    assert len(lines) == 1, finished.stderr
    assert lines[0].startswith("taskmesh: ")
    return lines[0]


class Held:
    """A task that has started, and runs until it is let go. It notes the pid of each start."""

    def __init__(self, mesh: Mesh, directory: Path, name: str = "held") -> None:
        self._started = directory / f"{name}.started"
        self._go = directory / f"{name}.go"

        def hold(started: str, go: str) -> str:  # a local function travels by itself: workers need not find us
            import os
            import time

            with open(started, "a") as file:
                file.write(f"{os.getpid()}\n")
            while not os.path.exists(go):
                time.sleep(0.005)
            return "was let go"

        self.future: Future[str] = mesh.submit(hold, str(self._started), str(self._go))

    def starts(self) -> list[int]:
        """The runners that it was started in, in order."""
        return [int(line) for line in self._started.read_text().split()] if self._started.exists() else []

    def wait_started(self, times: int = 1) -> list[int]:
        """Wait until it has started so often."""
        until(lambda: len(self.starts()) >= times, f"the task was started {times} times")
        return self.starts()

    def let_go(self) -> None:
        """Let it end."""
        self._go.touch()


# ---- what it is for ----------------------------------------------------------------------------------------


def test_two_workers_run_tasks_for_a_client(fleet: Fleet) -> None:
    hub, address = fleet.hub()
    workers = [fleet.worker(address, "-n", "1", "--name", name) for name in ("one", "two")]
    with Mesh(address) as mesh:
        held = [Held(mesh, fleet.directory, name) for name in ("a", "b")]
        runners = {held[0].wait_started()[0], held[1].wait_started()[0]}
        assert len(runners) == 2
        for task in held:
            task.let_go()
        assert [task.future.result(10) for task in held] == ["was let go"] * 2
        assert sum(mesh.map(abs, range(-10_000, 0))) == 50_005_000
    for process in (*workers, hub):
        process.signal(signal.SIGTERM)
        assert process.ends() == 0, process.output


def test_tasks_find_modules_in_the_directory_where_the_worker_was_started(
    fleet: Fleet, meshes: Callable[[str], Mesh]
) -> None:
    (fleet.directory / "beside_the_worker.py").write_text("answer = 42\n")
    _, address = fleet.hub()
    fleet.worker(address, "-n", "1")

    def ask() -> Any:
        import beside_the_worker  # type: ignore[import-not-found]

        return beside_the_worker.answer

    assert meshes(address).submit(ask).result(10) == 42


def test_a_script_finds_the_hub_by_the_environment(fleet: Fleet) -> None:
    _, address = fleet.hub()
    fleet.worker(address, "-n", "1")
    code = "from taskmesh import task\n@task\ndef f(x): return x + 1\nprint(f.submit(41).result(10))"
    script = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TASKMESH_HUB": address},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (script.returncode, script.stdout.strip()) == (0, "42"), script.stderr


def test_a_worker_waits_for_a_hub_that_is_not_there_yet_and_says_so_once(fleet: Fleet) -> None:
    address = f"ipc://{fleet.directory}/mesh"
    (fleet.directory / "mesh").mkdir(mode=0o700)
    worker = fleet.start("worker", address, "-n", "1")
    worker.says("no answer from the hub")
    fleet.hub(listen=address)
    worker.says("has joined")
    assert worker.output.count("no answer from the hub") == 1


def test_a_worker_joins_a_hub_that_was_started_again(fleet: Fleet) -> None:
    address = f"ipc://{fleet.directory}/mesh"
    first, _ = fleet.hub(listen=address)
    worker = fleet.worker(address, "-n", "1")
    first.signal(signal.SIGKILL)
    first.ends()
    fleet.hub(listen=address)
    until(lambda: worker.output.count("joined") == 2, "the worker has joined again")
    with Mesh(address) as mesh:
        assert mesh.submit(abs, -3).result(10) == 3


def test_a_log_level_may_be_in_capitals() -> None:
    finished = taskmesh("hub", "--log-level", "INFO", "--listen", "http://x")
    assert "unknown scheme 'http'" in one_line(finished)


def test_options_come_from_the_environment(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMESH_LISTEN", "tcp://localhost:0")
    hub = fleet.start("hub")
    hub.says("ready at tcp://127.0.0.1:")
    found = ADDRESS.search(hub.output)
    assert found is not None
    monkeypatch.setenv("TASKMESH_WORKERS", "2")
    monkeypatch.setenv("TASKMESH_NAME", "from-the-environment")
    worker = fleet.start("worker", found.group(1))
    worker.says(f"taskmesh worker from-the-environment has joined {found.group(1)} with 2 runners")


# ---- status ------------------------------------------------------------------------------------------------


def test_status_tells_what_there_is(fleet: Fleet, meshes: Callable[[str], Mesh]) -> None:
    _, address = fleet.hub()
    fleet.worker(address, "-n", "1", "--name", "Ada")
    mesh = meshes(address)
    held = Held(mesh, fleet.directory)
    held.wait_started()
    waiting = [mesh.submit(abs, -n) for n in range(3)]
    until(lambda: json.loads(taskmesh("status", address, "--json").stdout)["submitted"] == 4, "all are there")
    document = json.loads(taskmesh("status", address, "--json").stdout)
    assert (document["address"], document["version"]) == (address, __version__)
    assert [(d["name"], d["slots"]) for d in document["daemons"]] == [("Ada", 1)]
    [session] = document["sessions"]
    assert (session["pid"], session["waiting"] + session["running"]) == (os.getpid(), 4)
    tables = taskmesh("status", TASKMESH_HUB=address)
    assert tables.returncode == 0
    for text in (address, "Ada", "4 submitted", "Workers: 1, with 1 runner", "Clients: 1"):
        assert text in tables.stdout
    held.let_go()
    assert [future.result(10) for future in waiting] == [0, 1, 2]


def test_status_without_a_hub_says_so_and_fails() -> None:
    finished = taskmesh("status", NO_HUB, "--timeout", "0.3")
    assert finished.returncode == 3
    assert "nothing listens on tcp://127.0.0.1:1" in one_line(finished)


def test_status_of_something_else_says_so_and_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        finished = taskmesh("status", f"127.0.0.1:{server.getsockname()[1]}", "--insecure", "--timeout", "0.3")
    assert finished.returncode == 3
    assert "does not answer as a hub does" in one_line(finished)


# ---- what cannot work --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["hub", "--listen", "http://x"], "unknown scheme 'http'"),
        (["hub", "--listen", "tcp://127.0.0.1:seven"], "'seven' is not a port"),
        (["hub", "--listen", "tcp://127.0.0.1:65534"], "port 65534 is too high"),
        (["hub", "--lanes", "9-3"], "'9-3' is not a range of ports"),
        (["hub", "--lanes", "5550-5556"], "--lanes 5550-5556 has ports of the hub itself in it (5555-5558)"),
        (["hub", "--listen", "tcp://127.0.0.1:7000", "--lanes", "7003-7100"], "ports of the hub itself"),
        (["hub", "--advertise", "tcp://0.0.0.0:5555"], "--advertise: tcp://0.0.0.0:5555 is every address"),
        (["hub", "--advertise", "tcp://*:5555"], "name the one by which to reach it"),
        (["hub", "--advertise", "ipc:///tmp/x"], "nobody needs a ticket"),
        (["hub", "--lisen", "x"], "--lisen"),
        (["hub", "--listen"], "requires an argument. Try: taskmesh hub --help"),
        (["hub", "--log-level", "loud"], "loud"),
        (["hubb"], "hubb"),
        (["worker", "tcp://127.0.0.1:0"], "a port is between 1 and 65535"),
        (["worker", NO_HUB, "-n", "0"], "--workers"),
        (["worker", NO_HUB, "--name", "two\nlines"], "--name"),
        (["status", "tcp://"], "no host"),
        (["status", "127.0.0.1:5555:5556"], "too many colons"),
        (["status", "tcp://*:5555"], "name the one by which to reach it"),
        (["worker", "*"], "name the one by which to reach it"),
        (["status", "--timeout", "nan"], "'--timeout'"),
        (["status", "--timeout", "nan"], "nan is not a number from 0.1 to 86400"),
        (["status", "--timeout", "five"], "five is not a number from 0.1 to 86400"),
        (["status", "--timeout", "2147484"], "2147484 is not a number from 0.1 to 86400"),
        (["status", "--watch", "inf"], "inf is not a number from 0 to 86400"),
        (["status", "--watch", "99999999999"], "is not a number from 0 to 86400"),
        (["events", "--timeout", "1e300"], "1e300 is not a number from 0.1 to 86400"),
        (["worker", NO_HUB, "--drain-timeout", "nan"], "nan is not a number from 0 to 31622400"),
        (["worker", NO_HUB, "-n", "4097"], "4097 is not a whole number from 1 to 4,096"),
        (["worker", NO_HUB, "-n", "four"], "four is not a whole number from 1 to 4,096"),
        (["worker", NO_HUB, "--name", "x" * 65], "at most 64 characters"),
        (["worker", NO_HUB, "--memory-limit", "1MB"], "1MB is too little: at least 32 MiB"),
        (["worker", NO_HUB, "--memory-limit", "31M"], "31M is too little: at least 32 MiB"),
        (["worker", NO_HUB, "--memory-limit", "0"], "'0' is not a size in memory: it has to be more than 0"),
        (["worker", NO_HUB, "--recycle-above", "1"], "1 is too little: at least 32 MiB"),
        (["hub", "--session-grace", "inf"], "inf is not a number from 0 to 31622400"),
        (["hub", "--max-peers", "1.5"], "1.5 is not a whole number from 1 to 1,000,000,000"),
        (["hub", "--port", "7000"], "No such option: --port. An address has the port in it: --listen"),
        (["version"], "Try: taskmesh --version"),
        (["ticket", "list", "--timeout", "9999999999"], "is not a number from 0.1 to 86400"),
        (["ticket", "revoke", "x", "--timeout", "9999999999"], "is not a number from 0.1 to 86400"),
        (["hub", "--listen", "tcp://127.0.0.1:0", "--insecure", "--keys", "somewhere"], "--keys is of no use"),
        (["hub", "--listen", "tcp://127.0.0.1:0", "--insecure", "--advertise", "hub.lan"], "--advertise is of no use"),
    ],
)
def test_a_mistake_in_the_command_is_one_clear_line(arguments: list[str], says: str) -> None:
    finished = taskmesh(*arguments)
    assert finished.returncode == 2
    assert says in one_line(finished)


@pytest.mark.parametrize("verb", ["status", "events", "worker"])
def test_a_ticket_and_insecure_do_not_go_together(verb: str) -> None:
    finished = taskmesh(verb, NO_HUB, "--insecure", "--ticket", "some.ticket")
    assert finished.returncode == 7
    assert "do not go together" in one_line(finished)


def test_a_name_that_is_not_known_yet_is_an_address_that_cannot_be_listened_on() -> None:
    finished = taskmesh("hub", "--listen", "tcp://no-such-host.invalid:0")
    assert finished.returncode == 5
    assert "'no-such-host.invalid' is not known" in one_line(finished)


@pytest.mark.parametrize(("ahead", "which"), [(0, "it is in use"), (2, "which it takes too, is in use")])
def test_a_port_in_use_is_one_clear_line(ahead: int, which: str) -> None:
    port = free_ports(4)
    address = f"tcp://127.0.0.1:{port}"
    with socket.create_server(("127.0.0.1", port + ahead)):
        finished = taskmesh("hub", "--listen", address)
    assert finished.returncode == 5
    assert f"cannot listen on {address}: " in one_line(finished)
    assert f"{which}, probably by another hub: stop that one" in one_line(finished)


def test_a_second_hub_on_the_port_of_another_says_that_and_not_that_keys_are_in_use(fleet: Fleet) -> None:
    address = f"tcp://127.0.0.1:{free_ports(4)}"
    fleet.hub(listen=address)
    finished = taskmesh("hub", "--listen", address)
    assert finished.returncode == 5
    assert f"cannot listen on {address}: it is in use, probably by another hub: stop that one" in one_line(finished)


def test_a_hub_on_every_address_says_what_its_tickets_say(fleet: Fleet) -> None:
    hub, _ = fleet.hub("--advertise", "tcp://hub.lan:7000", listen="tcp://0.0.0.0:0")
    assert "(every address of this machine; its tickets say tcp://hub.lan:7000; " in hub.output


def test_an_address_of_another_machine_is_one_clear_line_behind_the_warning() -> None:
    finished = taskmesh("hub", "--listen", "tcp://192.0.2.1:0", "--insecure")
    assert finished.returncode == 5
    assert "that address is not one of this machine's" in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr


def test_a_second_hub_in_an_ipc_directory_is_refused_and_the_first_goes_on(fleet: Fleet) -> None:
    first, address = fleet.hub(listen=f"ipc://{fleet.directory}/mesh")
    finished = taskmesh("hub", "--listen", address)
    assert finished.returncode == 5
    assert "in use by another hub" in one_line(finished)
    assert taskmesh("status", address).returncode == 0
    first.signal(signal.SIGINT)
    assert first.ends() == 0
    assert [path.name for path in (fleet.directory / "mesh").iterdir()] == ["lock"]


def test_an_ipc_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    finished = taskmesh("hub", "--listen", f"ipc://{tmp_path}")
    assert finished.returncode == 5
    assert one_line(finished).endswith("others may enter it, and could run tasks; chmod 700 it first")
    (tmp_path / "of somebody").touch()
    finished = taskmesh("hub", "--listen", f"ipc://{tmp_path}")
    assert finished.returncode == 5
    assert one_line(finished).endswith("choose a directory of your own")


def test_a_worker_without_a_ticket_for_that_hub_is_told_how_to_get_one() -> None:
    finished = taskmesh("worker", "tcp://no-such-host.invalid:5555")
    assert finished.returncode == 7
    assert "taskmesh ticket create --role worker" in one_line(finished)


def test_a_worker_that_is_there_before_its_hub_waits_for_it(fleet: Fleet) -> None:
    port = free_ports(4)
    worker = fleet.start("worker", f"tcp://127.0.0.1:{port}", "-n", "1")
    worker.says("waiting until a hub is there")
    fleet.hub(listen=f"tcp://127.0.0.1:{port}")
    worker.says("has joined")


def test_insecure_is_warned_about_once(fleet: Fleet) -> None:
    hub, _ = fleet.hub("--insecure", "--log-level", "error", listen="tcp://0.0.0.0:0")
    hub.signal(signal.SIGTERM)
    assert hub.ends() == 0
    assert hub.output.count("is neither encrypted nor authenticated (--insecure)") == 1


def test_a_worker_gives_up_after_its_connect_timeout() -> None:
    finished = taskmesh("worker", NO_HUB, "-n", "1", "--connect-timeout", "0.3")
    assert finished.returncode == 3
    assert "no hub answered within 0.3 s: nothing listens" in one_line(finished)


def test_a_worker_of_another_release_is_refused_in_one_clear_line(fleet: Fleet) -> None:
    _, address = fleet.hub()
    code = (
        "import taskmesh; taskmesh.__version__ = '99.1'; from taskmesh.cli.main import main; "
        f"import sys; sys.argv[1:] = ['worker', {address!r}, '-n', '1']; main()"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert finished.returncode == 4
    assert f"it runs taskmesh 99.1, this hub runs {__version__}" in one_line(finished)


# ---- stopping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_worker_that_is_told_to_stop_finishes_what_runs(
    fleet: Fleet, meshes: Callable[[str], Mesh], number: signal.Signals
) -> None:
    _, address = fleet.hub()
    worker = fleet.worker(address, "-n", "1")
    mesh = meshes(address)
    held = Held(mesh, fleet.directory)
    [runner] = held.wait_started()
    worker.signal(number)
    worker.says("draining: finishing what runs on 1 runner; Ctrl-C again stops at once")
    held.let_go()
    assert held.future.result(10) == "was let go"
    assert worker.ends() == 0
    assert held.starts() == [runner]


def test_a_draining_worker_gives_back_what_has_not_started(fleet: Fleet, meshes: Callable[[str], Mesh]) -> None:
    _, address = fleet.hub()
    first = fleet.worker(address, "-n", "1")
    mesh = meshes(address)
    held = Held(mesh, fleet.directory)
    held.wait_started()
    others = [mesh.submit(abs, -n) for n in range(10)]
    first.signal(signal.SIGINT)
    first.says("draining")
    fleet.worker(address, "-n", "1")
    assert [future.result(10) for future in others] == list(range(10))
    held.let_go()
    assert first.ends() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_worker_that_is_told_twice_stops_at_once_and_its_task_runs_elsewhere(
    fleet: Fleet, meshes: Callable[[str], Mesh], number: signal.Signals, code: int
) -> None:
    _, address = fleet.hub()
    first = fleet.worker(address, "-n", "1")
    mesh = meshes(address)
    held = Held(mesh, fleet.directory)
    [runner] = held.wait_started()
    first.signal(number)
    first.says("draining")
    first.signal(number)
    assert first.ends(10) == code
    until(lambda: not alive(runner), "its runner is gone")
    fleet.worker(address, "-n", "1")
    held.wait_started(2)
    held.let_go()
    assert held.future.result(10) == "was let go"


def test_a_worker_that_is_killed_leaves_no_process_behind(fleet: Fleet, meshes: Callable[[str], Mesh]) -> None:
    _, address = fleet.hub()
    worker = fleet.worker(address, "-n", "2")
    held = Held(meshes(address), fleet.directory)
    [runner] = held.wait_started()
    worker.signal(signal.SIGKILL)
    worker.ends()
    until(lambda: not alive(runner), "its runner is gone")
    held.let_go()


def test_a_terminal_that_is_closed_lets_the_worker_finish_what_runs(
    fleet: Fleet, meshes: Callable[[str], Mesh]
) -> None:
    _, address = fleet.hub()
    worker = fleet.worker(address, "-n", "1")
    held = Held(meshes(address), fleet.directory)
    held.wait_started()
    os.killpg(worker.process.pid, signal.SIGHUP)  # every process in the foreground has it
    worker.says("draining: finishing what runs on 1 runner")
    held.let_go()
    assert held.future.result(10) == "was let go"
    assert worker.ends() == 0
    assert len(held.starts()) == 1


def test_a_worker_survives_its_terminal_below_nohup(fleet: Fleet) -> None:
    _, address = fleet.hub()
    code = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        f"os.execv(sys.executable, [sys.executable, '-m', 'taskmesh', 'worker', {address!r}, '-n', '1'])"
    )
    worker = Started(["-c", code], fleet.directory)
    try:
        worker.says("has joined")
        worker.signal(signal.SIGHUP)
        worker.signal(signal.SIGTERM)
        assert worker.ends() == 0
        assert worker.output.count("draining") == 1
    finally:
        worker.end_now()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_hub_that_is_told_to_stop_finishes_what_was_submitted(fleet: Fleet, number: signal.Signals) -> None:
    hub, address = fleet.hub()
    fleet.worker(address, "-n", "1")
    with Mesh(address) as mesh:
        held = Held(mesh, fleet.directory)
        held.wait_started()
        others = [mesh.submit(abs, -n) for n in range(10)]
        until(
            lambda: json.loads(taskmesh("status", address, "--json").stdout)["submitted"] == 11,
            "all are there",
        )
        hub.signal(number)
        hub.says("draining: 11 tasks left")
        with pytest.raises(RegistrationRefused, match="shutting down"):
            Mesh(address)
        held.let_go()
        assert held.future.result(10) == "was let go"
        assert [future.result(10) for future in others] == list(range(10))
    assert hub.ends() == 0


def test_a_draining_hub_without_workers_says_that_nobody_runs_what_is_left(
    fleet: Fleet, meshes: Callable[[str], Mesh]
) -> None:
    hub, address = fleet.hub()
    meshes(address).submit(abs, -1)
    until(lambda: json.loads(taskmesh("status", address, "--json").stdout)["waiting"] == 1, "it waits")
    hub.signal(signal.SIGINT)
    hub.says("draining: 1 task left, but no worker to run them")
    hub.signal(signal.SIGINT)
    assert hub.ends(10) == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_hub_that_is_told_twice_stops_at_once_and_its_clients_hear_it(
    fleet: Fleet, meshes: Callable[[str], Mesh], number: signal.Signals, code: int
) -> None:
    hub, address = fleet.hub()
    fleet.worker(address, "-n", "1")
    held = Held(meshes(address), fleet.directory)
    held.wait_started()
    hub.signal(number)
    hub.says("draining")
    hub.signal(number)
    assert hub.ends(10) == code
    with pytest.raises(HubUnreachable, match="the hub was stopped"):
        held.future.result(10)
    held.let_go()


def test_what_nobody_uses_stops_at_once(fleet: Fleet) -> None:
    hub, address = fleet.hub()
    worker = fleet.worker(address, "-n", "1")
    for process in (worker, hub):
        process.signal(signal.SIGINT)
        assert process.ends(10) == 0
        assert process.output.count("draining: nothing is left to finish") == 1


# ---- help --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_printed(option: str) -> None:
    finished = taskmesh(option)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith(f"taskmesh {__version__} ")


def test_without_a_verb_help_is_shown_and_it_is_a_mistake() -> None:
    finished = taskmesh()
    assert (finished.returncode, finished.stderr) == (2, "")
    assert "Exit codes" in finished.stdout


@pytest.mark.parametrize("verb", ["hub", "worker", "status", "events"])
def test_help_shows_examples_and_a_variable_for_every_option(verb: str) -> None:
    finished = taskmesh(verb, "--help")
    assert finished.returncode == 0
    assert "Examples" in finished.stdout
    options = len(re.findall(r"^│\s+--\w", finished.stdout, re.M)) - 1  # but for --help
    arguments = 0 if verb == "hub" else 1
    assert finished.stdout.count("env var: TASKMESH_") == options + arguments
    documented = (ROOT / "docs" / "cli.md").read_text()
    for name in re.findall(r"TASKMESH_[A-Z_]+", finished.stdout):
        assert name in documented


def test_help_and_the_page_on_the_command_line_have_the_same_exit_codes() -> None:
    shown = " ".join(taskmesh("--help").stdout.split()).partition("Exit codes: ")[2]
    page = (ROOT / "docs" / "cli.md").read_text().partition("## Exit codes")[2]
    codes = [code for cell in re.findall(r"^\| ([\d, ]+) \|", page, re.M) for code in cell.split(", ")]
    assert codes == ["0", "1", "2", "3", "4", "5", "6", "7", "130", "143", "129", "141"]
    assert [code for code in re.findall(r"\b\d+\b", shown) if code in codes] == codes


# ---- systemd -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_to_complain_about_in_the_units(tmp_path: Path) -> None:
    executable = tmp_path / "taskmesh"
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    units = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
    assert len(units) == 3
    for unit in units:
        text = unit.read_text()
        assert "ExecStart=/opt/taskmesh/bin/taskmesh " in text
        (tmp_path / unit.name).write_text(text.replace("/opt/taskmesh/bin/taskmesh", str(executable)))
    finished = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit.name) for unit in units)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (finished.returncode, finished.stdout + finished.stderr) == (0, "")
