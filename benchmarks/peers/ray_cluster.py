"""Ray on one machine: submit is a remote function, map is Ray's own stand-in for multiprocessing.Pool."""

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence

# Read when Ray is imported. A benchmark phones nobody, and leaves no key in its user's home, where Ray would
# make one: it gets one for this process instead.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_TOKEN", os.urandom(32).hex())

import ray
from ray.util.multiprocessing import Pool


class Adapter:
    """A local Ray. Its dashboard is off, and its sessions are below the temporary folder, to go with it."""

    def __init__(self) -> None:
        self._workers = 0
        self._remotes: dict[Callable[..., object], Callable[..., ray.ObjectRef[object]]] = {}
        self._pool: Pool | None = None

    def start(self, workers: int) -> None:
        self._workers = workers
        ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=os.path.join(tempfile.gettempdir(), "ray"),
        )

    def submit(self, fn: Callable[..., object], /, *args: object) -> "ray.ObjectRef[object]":
        """Make a remote function of each function once, as `@ray.remote` does."""
        remote = self._remotes.get(fn)
        if remote is None:
            remote = self._remotes[fn] = ray.remote(fn).remote
        return remote(*args)

    def result(self, handle: "ray.ObjectRef[object]") -> object:
        result: object = ray.get(handle)
        return result

    def gather(self, handles: "Sequence[ray.ObjectRef[object]]") -> list[object]:
        return list(ray.get(list(handles)))

    def map(self, fn: Callable[..., object], items: Iterable[object], chunksize: int | None = None) -> list[object]:
        if self._pool is None:
            self._pool = Pool(self._workers)
        return list(self._pool.map(fn, items, chunksize))

    def stop(self) -> None:
        if self._pool is not None:
            self._pool.terminate()
        ray.shutdown()
