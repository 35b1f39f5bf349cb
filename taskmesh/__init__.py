"""taskmesh: a distributed task queue on ZeroMQ. Decorate functions, launch workers, submit.

    from taskmesh import Mesh, task

    @task
    def square(x: int) -> int:
        return x * x

    with Mesh() as mesh:
        print(sum(mesh.map(square, range(1_000_000))))

Everything public is here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .errors import (
    AddressError,
    HubFull,
    HubUnreachable,
    InitializerFailed,
    MemoryLimitExceeded,
    MeshClosed,
    MeshStartError,
    ModuleMissing,
    NestedMeshError,
    NoTicket,
    PayloadError,
    RegistrationRefused,
    RemoteError,
    TaskError,
    TaskInterrupted,
    TaskmeshError,
    TaskTimeout,
    TicketError,
    WindowFull,
    WorkerLost,
)
from .task import Task, TaskInfo, current_task, task

if TYPE_CHECKING:
    from .futures import Future
    from .mesh import Mesh
    from .meshes import current_mesh
    from .waiting import as_completed, gather, wait

__version__ = "0.1.0"

# Loaded when first used: a runner imports this package for `task`, and must not pay for sockets.
_LAZY = {
    "Future": "futures", "as_completed": "waiting", "gather": "waiting", "wait": "waiting",
    "Mesh": "mesh", "current_mesh": "meshes",
}  # fmt: skip

__all__ = [
    "AddressError",
    "Future",
    "HubFull",
    "HubUnreachable",
    "InitializerFailed",
    "MemoryLimitExceeded",
    "Mesh",
    "MeshClosed",
    "MeshStartError",
    "ModuleMissing",
    "NestedMeshError",
    "NoTicket",
    "PayloadError",
    "RegistrationRefused",
    "RemoteError",
    "Task",
    "TaskError",
    "TaskInfo",
    "TaskInterrupted",
    "TaskTimeout",
    "TaskmeshError",
    "TicketError",
    "WindowFull",
    "WorkerLost",
    "__version__",
    "as_completed",
    "current_mesh",
    "current_task",
    "gather",
    "task",
    "wait",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'taskmesh' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
