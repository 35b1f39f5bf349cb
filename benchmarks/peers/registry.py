"""Which peers there are, what they need, and how their treatment differs: the one place that lists them."""

import importlib
import importlib.util
from typing import Any, NamedTuple

from benchmarks.peers.base import Peer

EXPERT_CHUNKSIZE = 10_000
"""Items per message where users have to guess: what an expert would give for a million no-op items."""


class PeerInfo(NamedTuple):
    """What the harness knows about a peer without importing it."""

    name: str
    module: str
    needs: tuple[str, ...]
    """Modules that must be importable."""
    packages: tuple[str, ...]
    """Distributions whose versions belong into the report."""
    slow: bool = False
    """Gets fewer tasks where only rates are compared, or most of a run would be spent on it."""
    map_chunksize: int | None = None
    """Items per message in W3; None where the library finds its own."""
    only_asked: bool = False
    """Left out where nobody names it: it answers a question of its own."""


PEERS: dict[str, PeerInfo] = {
    info.name: info
    for info in (
        PeerInfo(
            "taskmesh",
            "benchmarks.peers.taskmesh_private",
            ("taskmesh", "taskmesh_worker"),
            ("taskmesh", "pyzmq"),
        ),
        PeerInfo(
            "taskmesh-apart",
            "benchmarks.peers.taskmesh_apart",
            ("taskmesh", "taskmesh_worker"),
            ("taskmesh", "pyzmq"),
        ),
        PeerInfo(
            "taskmesh-apart-insecure",
            "benchmarks.peers.taskmesh_insecure",
            ("taskmesh", "taskmesh_worker"),
            ("taskmesh", "pyzmq"),
            only_asked=True,
        ),
        PeerInfo("mp.Pool", "benchmarks.peers.mp_pool", (), (), map_chunksize=EXPERT_CHUNKSIZE),
        PeerInfo("ProcessPoolExecutor", "benchmarks.peers.process_pool", (), (), map_chunksize=EXPERT_CHUNKSIZE),
        PeerInfo("loky", "benchmarks.peers.loky_executor", ("joblib",), ("joblib",), map_chunksize=EXPERT_CHUNKSIZE),
        PeerInfo(
            "dask",
            "benchmarks.peers.dask_cluster",
            ("distributed",),
            ("dask", "distributed"),
            slow=True,
            map_chunksize=EXPERT_CHUNKSIZE,
        ),
        PeerInfo("ray", "benchmarks.peers.ray_cluster", ("ray",), ("ray",), slow=True),
    )
}


def missing(info: PeerInfo) -> list[str]:
    """Name the modules that this peer needs and this Python does not have.

    A folder without `__init__.py` counts as missing: it has a spec, but nothing to import from.
    """
    specs = {name: importlib.util.find_spec(name) for name in info.needs}
    return [name for name, spec in specs.items() if spec is None or spec.origin is None]


def create(info: PeerInfo) -> Peer[Any]:
    """Import the adapter, and with it the peer's library, and make one. Handles differ by peer, hence Any."""
    adapter: Peer[Any] = importlib.import_module(info.module).Adapter()
    return adapter
