"""The process of a private mesh: hub and daemon in one loop, started by `taskmesh.launch`.

The nursery starts first, before sockets are even imported, so that both load at the same time. The process ends when
its life-line does: with the client, however that ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import select
import shutil
import signal
import sys
from typing import Any

from taskmesh.transport.versions import host_name
from taskmesh_worker.forking import NurseryProcess


def main() -> None:
    """Run until the client is gone. Configuration is one JSON argument."""
    config = json.loads(sys.argv[1])
    nursery = NurseryProcess(host_name(), config["sys_path"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the client's
    code = 1
    try:
        lock = open(os.path.join(config["directory"], "lock"), "w")  # noqa: SIM115  (held until the end)
        fcntl.flock(lock, fcntl.LOCK_EX)
        _serve(config, nursery)
        code = 0
    except BaseException:
        if _client_is_gone(config):
            code = 0  # it ended while we started: whatever we missed is what it took away
        else:
            sys.excepthook(*sys.exc_info())
    finally:
        if code == 0:
            shutil.rmtree(config["directory"], ignore_errors=True)
        os._exit(code)


def _client_is_gone(config: dict[str, Any]) -> bool:
    return os.getppid() != config["parent"] or bool(select.select([config["life"]], [], [], 0)[0])


def _serve(config: dict[str, Any], nursery: NurseryProcess) -> None:
    from taskmesh.core.quota import UNLIMITED
    from taskmesh.core.timing import Timing
    from taskmesh.hub import Hub, HubConfig
    from taskmesh.transport.endpoints import Address
    from taskmesh.transport.loop import SPIN_S, Loop
    from taskmesh.transport.sockets import new_context
    from taskmesh_worker.daemon import Daemon, DaemonConfig

    logging.basicConfig(level=logging.WARNING, format="taskmesh: %(message)s")
    context, loop = new_context(), Loop(SPIN_S)
    address = Address("ipc", config["directory"], 0)
    hub = Hub(HubConfig(address, timing=Timing(float("inf"), 0.0), quotas=UNLIMITED), context, loop)
    worker = DaemonConfig("the private hub", config["workers"], "private", config["sys_path"])
    daemon = Daemon(worker, context, loop, nursery, hub)

    loop.lone = lambda: daemon.plan.lone

    def stop() -> None:
        loop.stopping = True

    loop.watch(config["life"], stop)
    with contextlib.suppress(OSError, AttributeError):  # the pipe alone does where there is no pidfd
        loop.watch(os.pidfd_open(config["parent"]), stop)
    if os.getppid() != config["parent"]:
        stop()
    os.write(config["ready"], b"r")
    os.close(config["ready"])
    loop.run()
    hub.close("the mesh was shut down")
    daemon.close()
