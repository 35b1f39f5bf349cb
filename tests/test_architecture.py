"""The layering, as a test: which part may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import taskmesh

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "taskmesh"
DAEMON = ROOT / "workers" / "taskmesh_worker"
IN_RUNNERS = {"runner.py", "functions.py", "results.py"}  # what runs beside a user's code, and opens its pickles
IMPURE = {"zmq", "sqlite3", "os", "time", "random", "threading", "asyncio", "socket", "subprocess", "multiprocessing"}


def imports(path: Path) -> Iterator[str]:
    """Absolute names of everything that a file imports, also inside functions; relative ones resolved."""
    home = path.relative_to(ROOT if path.is_relative_to(LIBRARY) else ROOT / "workers")
    package = ".".join(home.parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


PURE = [*files(LIBRARY / "core"), *sorted(DAEMON.glob("plan*.py")), DAEMON / "blocks.py"]


@pytest.mark.parametrize("path", PURE, ids=short)
def test_the_core_and_the_plan_do_no_io_and_read_no_clock(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports(path)} & IMPURE


@pytest.mark.parametrize("path", files(LIBRARY / "core"), ids=short)
def test_the_core_knows_only_itself_and_errors(path: Path) -> None:
    ours = {name for name in imports(path) if name.startswith("taskmesh")}
    assert all(name.startswith(("taskmesh.core", "taskmesh.errors")) for name in ours), ours


@pytest.mark.parametrize("path", [p for p in files(LIBRARY) if "cli" not in p.parts], ids=short)
def test_the_library_never_imports_the_daemon(path: Path) -> None:
    assert not [name for name in imports(path) if name.startswith("taskmesh_worker")]


@pytest.mark.parametrize("path", files(DAEMON), ids=short)
def test_the_daemon_imports_only_core_wire_and_transport(path: Path) -> None:
    allowed: tuple[str, ...] = (
        "taskmesh.core",
        "taskmesh.wire",
        "taskmesh.transport",
        "taskmesh.errors",
        "taskmesh.__version__",
    )
    if path.name in IN_RUNNERS:
        allowed += ("taskmesh.task",)
    ours = {n for n in imports(path) if n.startswith("taskmesh.")}
    assert all(name.startswith(allowed) for name in ours), ours


@pytest.mark.parametrize("path", [*files(LIBRARY), *files(DAEMON)], ids=short)
def test_only_one_file_pickles(path: Path) -> None:
    pickling = {"pickle", "cloudpickle", "marshal", "shelve", "dill"} & {n.partition(".")[0] for n in imports(path)}
    if path == LIBRARY / "wire" / "payload.py":
        assert pickling
    elif path == DAEMON / "nursery.py":
        assert pickling == {"cloudpickle"}  # preloaded for the runners, and not used
    else:
        assert not pickling


@pytest.mark.parametrize(
    "path",
    [
        *[LIBRARY / name for name in ("hub.py", "inboxes.py", "reception.py", "door.py", "lanes.py", "journal.py")],
        *files(LIBRARY / "transport"),
        *files(LIBRARY / "core"),
        *[p for p in files(DAEMON) if p.name not in IN_RUNNERS | {"nursery.py"}],
    ],
    ids=short,
)
def test_hub_and_daemon_never_open_a_payload(path: Path) -> None:
    assert not [name for name in imports(path) if name.startswith("taskmesh.wire.payload")]


@pytest.mark.parametrize("module", ["taskmesh", "taskmesh.task", "taskmesh_worker.nursery", "taskmesh_worker.runner"])
def test_what_a_runner_imports_brings_no_sockets(module: str) -> None:
    code = (
        f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'workers')]!r}; import {module}; "
        f"print([m for m in ('zmq', 'msgpack', 'psutil', 'typer', 'rich', 'asyncio') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert out.stdout.strip() == "[]"


def test_hub_and_daemon_start_without_asyncio() -> None:
    """It takes as long to import as all of ours, and a private mesh starts with every script."""
    code = (
        f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'workers')]!r}; "
        f"import taskmesh.hub, taskmesh_worker.daemon; print('asyncio' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert out.stdout.strip() == "False"


@pytest.mark.parametrize("path", [*files(LIBRARY), *files(DAEMON)], ids=short)
def test_no_file_grows_beyond_reading(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 650


def test_workers_is_no_package() -> None:
    assert not (ROOT / "workers" / "__init__.py").exists()


def test_every_public_name_exists_and_is_documented() -> None:
    for name in taskmesh.__all__:
        value = getattr(taskmesh, name)
        assert name == "__version__" or value.__doc__, name
    assert set(taskmesh.__all__) <= set(dir(taskmesh))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Mehs'"):
        getattr(taskmesh, "Mehs")  # noqa: B009
