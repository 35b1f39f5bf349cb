"""Whole programs: where functions may live, how programs end, and what they leave."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import psutil
import pytest

from .processes import Started, alive, kill, run, running, until, write_script

MAIN = """
    import enum
    import functools
    from dataclasses import dataclass
    from taskmesh import Mesh, task

    class Color(enum.Enum):
        RED = 1

    @dataclass
    class Point:
        x: int
        color: Color = Color.RED
        def moved(self, by):
            return Point(self.x + by, self.color)

    class Problem(Exception):
        pass

    @functools.cache
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    @task
    def factorial(n):
        return 1 if n < 2 else n * factorial(n - 1)

    @task(name="cached")
    @functools.lru_cache(maxsize=10)
    def cached(n):
        return fibonacci(n)

    def move(point):
        assert isinstance(point, Point) and point.color is Color.RED
        return point.moved(1)

    def problem():
        raise Problem("of mine")

    LIMIT = 10

    with Mesh(workers=2) as mesh:
        assert mesh.submit(factorial, LIMIT).result() == 3628800
        assert factorial.submit(5).result() == 120
        assert mesh.submit(fibonacci, 50).result() == 12586269025
        assert mesh.submit(lambda: fibonacci(LIMIT)).result() == 55
        assert cached.submit(20).result() == 6765
        there = mesh.submit(move, Point(1)).result()
        assert type(there) is Point and there == Point(2) and there.color is Color.RED
        assert mesh.submit(there.moved, 5).result().x == 7
        assert [p.x for p in mesh.map(Point, range(300))] == list(range(300))
        try:
            mesh.submit(problem).result()
        except Problem as error:
            assert "in problem" in str(error.__cause__)
        print("all", "well")
"""


def dedented(source: str) -> str:
    """Without the four columns that it is indented by here."""
    return "\n".join(line.removeprefix("    ") for line in source.splitlines()) + "\n"


def test_a_script_without_a_guard(tmp_path: Path) -> None:
    assert run(MAIN, tmp_path) == "all well\n"


def test_a_module_run_with_m(tmp_path: Path) -> None:
    write_script(tmp_path, MAIN, "program.py")
    started = Started(["-m", "program"], tmp_path)
    assert started.ends() == 0, started.output
    assert started.output == "all well\n"


def test_code_on_the_command_line(tmp_path: Path) -> None:
    started = Started(["-c", dedented(MAIN)], tmp_path)
    assert started.ends() == 0, started.output
    assert started.output == "all well\n"


def test_code_on_standard_input(tmp_path: Path) -> None:
    with open(write_script(tmp_path, MAIN, "piped")) as source:
        started = Started(["-"], tmp_path, source.fileno())
    assert started.ends() == 0, started.output
    assert started.output == "all well\n"


def test_development_mode_has_nothing_to_warn_of(tmp_path: Path) -> None:
    started = Started(["-X", "dev", "-W", "error", write_script(tmp_path, MAIN)], tmp_path)
    assert started.ends() == 0, started.output
    assert started.output == "all well\n"


def test_a_notebook(tmp_path: Path) -> None:
    if importlib.util.find_spec("IPython") is None:
        pytest.skip("IPython is not installed")
    cells = [
        "from taskmesh import Mesh, task\nmesh = Mesh(workers=1)",
        "def offset():\n    return 1\n@task\ndef f(x):\n    return x + offset()",
        "print(mesh.submit(f, 1).result(), list(mesh.map(f, [1, 2])))",
        "def offset():\n    return 10\n@task\ndef f(x):\n    return x + offset()",
        "print(mesh.submit(f, 1).result())",
        "mesh.shutdown()",
    ]
    run(
        f"""
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        for cell in {cells!r}:
            shell.run_cell(cell).raise_error()
        """,
        tmp_path,
    )


class Terminal:
    """A Python at a terminal of its own, as a person has it."""

    def __init__(self, arguments: list[str], directory: Path) -> None:
        self._ours, theirs = pty.openpty()
        attributes = termios.tcgetattr(theirs)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, attributes)
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=directory, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "PYTHON_BASIC_REPL": "1", "TERM": "dumb"},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self.output = ""

    def types(self, text: str) -> None:
        """As from the keyboard; `\\x03` is Ctrl-C."""
        os.write(self._ours, text.encode())

    def _reads(self) -> str:
        try:
            self.output += os.read(self._ours, 65536).decode(errors="replace")
        except BlockingIOError:
            pass
        except OSError:  # it has closed its end
            return self.output
        return self.output

    def says(self, text: str, seconds: float = 15.0) -> None:
        """Wait until it has printed `text`, and forget what came before."""
        until(lambda: text in self._reads(), f"{text!r}; so far: {self.output!r}", seconds)
        self.output = self.output.split(text, 1)[1]

    def ends(self, seconds: float = 15.0) -> int:
        """Wait for its end; returns its exit code."""
        until(lambda: (self._reads(), self.process.poll())[1] is not None, f"it ends: {self.output!r}", seconds)
        return int(self.process.wait())

    def end_now(self) -> None:
        """Kill it if it is still there."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)


def test_the_interactive_interpreter(tmp_path: Path) -> None:
    terminal = Terminal(["-i", "-q"], tmp_path)
    try:
        terminal.says(">>> ")
        terminal.types("from taskmesh import Mesh, task\nmesh = Mesh(workers=1)\n")
        terminal.types("def f(x): return x + offset\n\noffset = 1\n")
        terminal.types("print('got', mesh.submit(f, 1).result())\n")
        terminal.says("got 2")
        terminal.types("import time; print('sle' + 'eps'); mesh.submit(time.sleep, 0.6).result()\n")
        terminal.says("sleeps")
        terminal.types("\x03")
        terminal.says("KeyboardInterrupt")
        terminal.types("print('got', mesh.submit(f, 4).result())\n")
        terminal.says("got 5")
        terminal.types("exit()\n")
        assert terminal.ends() == 0
    finally:
        terminal.end_now()


# ---- modules beside the script --------------------------------------------------------------------------------------


def test_modules_beside_the_script_are_found(tmp_path: Path) -> None:
    package = tmp_path / "helpers"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text("class Thing:\n    def __init__(self, x):\n        self.x = x\n")
    (tmp_path / "beside.py").write_text(
        "from taskmesh import task\nfrom helpers.inner import Thing\n@task\ndef make(x):\n    return Thing(x)\n"
    )
    source = """
        import sys
        from pathlib import Path
        sys.path.append(Path("/not/a/string"))
        from beside import make
        from taskmesh import Mesh
        if __name__ == "__main__":
            with Mesh(workers=1) as mesh:
                print(make.submit(3).result().x, [t.x for t in make.map(range(3))])
        """
    script = write_script(tmp_path, source)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    started = Started([script], elsewhere)
    assert started.ends() == 0, started.output
    assert started.output == "3 [0, 1, 2]\n"


# ---- the end --------------------------------------------------------------------------------------------------------


def test_the_default_mesh_finishes_pending_work_at_exit(tmp_path: Path) -> None:
    output = run(
        """
        import time
        from taskmesh import task
        @task
        def write(n):
            time.sleep(0.1)
            open("done", "a").write("x")
        for n in range(6):
            write.submit(n)
        print("left")
        """,
        tmp_path,
    )
    assert output == "left\n"
    assert (tmp_path / "done").read_text() == "xxxxxx"


def test_a_mesh_that_was_dropped_finishes_pending_work_at_exit(tmp_path: Path) -> None:
    run(
        """
        import time
        from taskmesh import Mesh
        def write(n):
            time.sleep(0.1)
            open("done", "a").write("x")
        def main():
            mesh = Mesh(workers=2)
            for n in range(6):
                mesh.submit(write, n)
        main()
        """,
        tmp_path,
    )
    assert (tmp_path / "done").read_text() == "xxxxxx"


@pytest.mark.parametrize("end", ["sys.exit(7)", "raise LookupError", "os._exit(7)"])
def test_every_way_out_leaves_nothing(tmp_path: Path, end: str) -> None:
    with running(
        f"""
        import os, sys
        from taskmesh import Mesh
        mesh = Mesh(workers=2)
        print(mesh.submit(pow, 2, 3).result())
        {end}
        """,
        tmp_path,
    ) as script:
        assert script.ends() == (1 if "raise" in end else 7), script.output
        assert script.output.startswith("8\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_killed_client_leaves_nothing(tmp_path: Path, number: int) -> None:
    with running(
        """
        import subprocess, time
        from taskmesh import Mesh
        def busy(n):
            subprocess.run(["sleep", "1000"]) if n == 0 else time.sleep(1000)
        mesh = Mesh(workers=2)
        futures = [mesh.submit(busy, n) for n in range(10)]
        print("ready", flush=True)
        futures[0].result()
        """,
        tmp_path,
    ) as script:
        script.says("ready")
        until(lambda: len(psutil.Process(script.process.pid).children(recursive=True)) >= 5, "everything runs")
        below = psutil.Process(script.process.pid).children(recursive=True)
        script.signal(number)
        assert script.ends() == -number
        until(lambda: not any(alive(process.pid) for process in below), "nothing is left")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda n: n.name)
@pytest.mark.parametrize("moment", range(6))
def test_a_client_that_ends_while_its_mesh_starts_leaves_nothing(tmp_path: Path, number: int, moment: int) -> None:
    """A hub starts in 0.1 to 0.4 seconds, so these moments are spread over that."""
    with running(
        f"""
        import os, threading, time
        from taskmesh import Mesh
        from taskmesh.launch import PrivateHub
        started = PrivateHub._start
        def start(self):
            started(self)
            threading.Timer({moment * 0.04}, os.kill, (os.getpid(), {int(number)})).start()
        PrivateHub._start = start
        with Mesh(workers=1) as mesh:
            time.sleep(20)
        """,
        tmp_path,
    ) as script:
        assert script.ends() == -number
        assert "joined.py" not in script.output


def test_a_directory_left_by_two_kills_is_swept(tmp_path: Path) -> None:
    source = """
        import os
        from taskmesh import Mesh
        mesh = Mesh(workers=1)
        print("pids", mesh._private.pid, mesh._private.directory, flush=True)
        mesh.submit(__import__("time").sleep, 1000).result()
        """
    with running(source, tmp_path) as script:
        script.says("pids ")
        _, hub, directory = script.output.split()
        script.signal(signal.SIGSTOP)  # or it would start the hub again
        kill(int(hub))
        until(lambda: not alive(int(hub)), "the hub is dead")
        script.signal(signal.SIGKILL)
        script.ends()
    assert Path(directory).exists()
    os.utime(directory, (0, 0))
    run("from taskmesh import Mesh\nwith Mesh(workers=1): pass", tmp_path)
    assert not Path(directory).exists()


def test_ctrl_c_while_waiting_for_a_result(tmp_path: Path) -> None:
    with running(
        """
        import time
        from taskmesh import Mesh
        with Mesh(workers=1) as mesh:
            futures = [mesh.submit(time.sleep, 0.3) for n in range(1000)]
            print("ready", flush=True)
            futures[-1].result()
        """,
        tmp_path,
    ) as script:
        script.says("ready")
        script.signal(signal.SIGINT)
        assert script.ends(10) in (-signal.SIGINT, 1, 130), script.output
        assert "KeyboardInterrupt" in script.output
        assert "taskmesh:" not in script.output


def test_a_second_ctrl_c_does_not_wait_for_the_task(tmp_path: Path) -> None:
    with running(
        """
        import time
        from taskmesh import Mesh
        with Mesh(workers=1) as mesh:
            future = mesh.submit(time.sleep, 1000)
            try:
                print("ready", flush=True)
                future.result()
            except KeyboardInterrupt:
                print("first", flush=True)
                raise
        """,
        tmp_path,
    ) as script:
        script.says("ready")
        script.signal(signal.SIGINT)
        script.says("first")
        script.signal(signal.SIGINT)
        assert script.ends(10) in (-signal.SIGINT, 1, 130), script.output


def test_ctrl_c_at_any_moment_of_a_submit_loop_loses_nothing(tmp_path: Path) -> None:
    output = run(
        """
        import os, random, signal, threading, time
        from taskmesh import Mesh
        def same(x):
            return x
        armed = stopped = False
        def interrupt():
            while not stopped:
                time.sleep(random.random() * 0.004)
                if armed:
                    os.kill(os.getpid(), signal.SIGINT)
        mesh = Mesh(workers=2)
        mesh.submit(same, 0).result()
        threading.Thread(target=interrupt, daemon=True).start()
        interrupted = 0
        for turn in range(100):
            futures = []
            try:
                armed = True
                if turn % 3 == 2:
                    for _ in mesh.map(same, range(20000)):
                        pass
                for n in range(3000):
                    futures.append((n, mesh.submit(same, n)))
                for n, future in futures[::50]:
                    future.result()
                armed = False
            except KeyboardInterrupt:
                armed = False
                interrupted += 1
            try:
                time.sleep(0.002)
            except KeyboardInterrupt:
                pass
            for n, future in futures:
                assert future.result(10) == n
        stopped = True
        mesh.shutdown()
        print("interrupted", interrupted > 20)
        """,
        tmp_path,
    )
    assert output == "interrupted True\n"


def test_ctrl_c_at_the_terminal_ends_a_program_once(tmp_path: Path) -> None:
    source = """
        import time
        from taskmesh import Mesh
        with Mesh(workers=2) as mesh:
            print("ready", flush=True)
            for _ in mesh.map(time.sleep, [0.01] * 100000):
                pass
        """
    terminal = Terminal([write_script(tmp_path, source)], tmp_path)
    try:
        terminal.says("ready")
        terminal.types("\x03")
        assert terminal.ends() in (-signal.SIGINT, 1, 130)
        assert terminal.output.count("KeyboardInterrupt") == 1, terminal.output
        assert "taskmesh:" not in terminal.output
    finally:
        terminal.end_now()


# ---- forks and threads ----------------------------------------------------------------------------------------------


def test_a_forked_child_neither_uses_nor_ends_the_mesh_of_its_parent(tmp_path: Path) -> None:
    output = run(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore")
        from taskmesh import Mesh, MeshClosed, task
        @task
        def same(x):
            return x
        mesh = Mesh(workers=1)
        pending = mesh.submit(__import__("time").sleep, 0.5)
        mapped = mesh.map(same, range(5))
        for turn in range(3):
            child = os.fork()
            if child == 0:
                try:
                    mesh.submit(same, 1)
                    os._exit(1)
                except MeshClosed:
                    pass
                for wait in (pending.result, pending.exception, lambda: next(mapped)) if turn == 0 else ():
                    try:
                        wait()
                        os._exit(2)
                    except MeshClosed:
                        pass
                mesh.shutdown()
                if turn == 1:
                    with Mesh(workers=1) as own:
                        assert own.submit(same, 2).result() == 2
                    assert same.submit(3).result() == 3
                sys.exit(5)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
            assert mesh.submit(same, turn).result(10) == turn
        assert pending.result(10) is None
        print("unharmed")
        """,
        tmp_path,
    )
    assert output == "unharmed\n"


def test_a_fork_that_outlives_its_parent_does_not_keep_the_mesh(tmp_path: Path) -> None:
    with running(
        """
        import os, signal, sys, time, warnings
        warnings.simplefilter("ignore")
        from taskmesh import Mesh
        mesh = Mesh(workers=1)
        mesh.submit(pow, 2, 3).result()
        child = os.fork()
        if child == 0:
            time.sleep(1000)
        print("child", child, mesh._private.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path,
    ) as script:
        assert script.ends() == -signal.SIGKILL
        _, child, hub = script.output.split()
        until(lambda: not alive(int(hub)), "the hub has ended")
        assert alive(int(child))
        kill(int(child))


def test_multiprocessing_beside_a_mesh(tmp_path: Path) -> None:
    output = run(
        """
        import multiprocessing, warnings
        warnings.simplefilter("ignore")
        from taskmesh import Mesh
        def work(n):
            with Mesh(workers=1) as mesh:
                return mesh.submit(abs, -n).result()
        with Mesh(workers=1) as mesh:
            with multiprocessing.get_context("fork").Pool(2) as pool:
                print(pool.map(work, range(3)), mesh.submit(abs, -4).result())
        """,
        tmp_path,
    )
    assert output == "[0, 1, 2] 4\n"


def test_a_long_temporary_directory(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    before = {str(path) for path in Path("/tmp").glob("taskmesh-*")}
    output = run(
        f"""
        import os
        os.environ["TMPDIR"] = {str(long)!r}
        from taskmesh import Mesh
        with Mesh(workers=1) as mesh:
            print(mesh._private.directory, mesh.submit(pow, 2, 3).result())
        """,
        tmp_path,
    )
    directory, value = output.split()
    assert value == "8"
    assert not Path(directory).exists()
    assert not list(long.iterdir())
    assert directory not in before


def test_numpy_is_not_needed(tmp_path: Path) -> None:
    output = run(
        """
        import sys
        sys.modules["numpy"] = None
        from taskmesh import Mesh
        with Mesh(workers=1) as mesh:
            print(sum(mesh.map(abs, range(-10, 0))))
            try:
                mesh.submit(lambda: __import__("no_such_module")).result()
            except ModuleNotFoundError as error:
                print(error)
        """,
        tmp_path,
    )
    assert output == "55\nNo module named 'no_such_module'\n"
