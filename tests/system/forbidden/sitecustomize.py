"""Found on PYTHONPATH by each process of a mesh: in a hub or daemon, whoever opens a pickle ends that process.

`$TASKMESH_TEST_OPENED` names a directory: a process that is watched leaves a file there when it starts, and another one
when something was opened. Runners and nurseries are others: to open pickles is what a runner is for.
"""

import os
import sys

WATCHED = {"-m taskmesh hub": "hub", "-m taskmesh worker": "worker", "taskmesh.cli.joined": "private"}
EXIT = 86


def note(name: str, text: str) -> None:
    """Leave a file."""
    path = os.path.join(os.environ["TASKMESH_TEST_OPENED"], f"{name}-{os.getpid()}")
    with open(path, "w") as file:
        file.write(text)


def opened(what: str) -> None:
    """Say where, and end the process: an exception might be swallowed."""
    import traceback

    note("opened", f"{what}\n{''.join(traceback.format_stack(limit=12))}")
    os._exit(EXIT)


def forbid() -> None:
    """Every way of unpickling ends this process."""
    import _pickle
    import marshal
    import pickle

    class Unpickler:
        def __init__(self, *args: object, **options: object) -> None:
            opened("Unpickler")

    def loads(*args: object, **options: object) -> None:
        opened("loads")

    def unmarshal(data: bytes) -> object:
        if not sys._getframe(1).f_code.co_filename.startswith("<frozen importlib"):  # which reads .pyc files so
            opened("marshal.loads")
        return marshalled(data)

    for module in (pickle, _pickle):
        for name in ("load", "loads", "_load", "_loads"):
            setattr(module, name, loads)
        for name in ("Unpickler", "_Unpickler"):
            setattr(module, name, Unpickler)
    marshalled = marshal.loads
    setattr(marshal, "loads", unmarshal)  # noqa: B010

    def audit(event: str, args: tuple[object, ...]) -> None:
        if event == "pickle.find_class":
            opened(f"{event} {args}")

    sys.addaudithook(audit)


for words, role in WATCHED.items():
    if words in " ".join(sys.orig_argv) and "TASKMESH_TEST_OPENED" in os.environ:
        forbid()
        note(f"watched-{role}", "")
