"""An initializer prepares its runners for the tasks of its mesh, in a script as well."""

from __future__ import annotations

from pathlib import Path

from taskmesh import Mesh
from tests.system.processes import run

SCRIPT = """
from taskmesh import Mesh

pool = None

def connect(name):
    global pool
    pool = name

def use():
    return pool

with Mesh(workers=1, initializer=connect, initargs=("db",)) as mesh:
    print(use(), mesh.submit(use).result(), list(mesh.map(lambda n: (pool, n), [1])))
"""


def test_an_initializer_that_sets_a_global_is_seen_by_the_tasks_of_a_script(tmp_path: Path) -> None:
    assert run(SCRIPT, tmp_path).strip() == "None db [('db', 1)]"


def test_an_initializer_may_be_a_method_of_a_builtin_type() -> None:
    with Mesh(workers=1, initializer=list.append, initargs=([], 1)) as mesh:
        assert mesh.submit(abs, -3).result(20) == 3


def test_a_function_that_goes_away_is_retired_without_a_word(tmp_path: Path) -> None:
    source = """
from taskmesh import Mesh
with Mesh(workers=1) as mesh:
    f = lambda x: x
    print(mesh.submit(f, 1).result())
    del f
"""
    assert run(source, tmp_path).strip() == "1"
