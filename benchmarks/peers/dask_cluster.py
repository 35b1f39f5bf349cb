"""dask.distributed on one machine: a LocalCluster of processes with one thread each."""

from collections.abc import Callable, Iterable, Sequence

import dask.bag
from distributed import Client, Future, LocalCluster


class Adapter:
    """A LocalCluster and its Client. The dashboard is off: it would be measured too."""

    def __init__(self) -> None:
        self._cluster: LocalCluster | None = None
        self._client: Client | None = None

    def start(self, workers: int) -> None:
        self._cluster = LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None)
        self._client = Client(self._cluster)

    @property
    def client(self) -> Client:
        assert self._client is not None, "start() comes first"
        return self._client

    def submit(self, fn: Callable[..., object], /, *args: object) -> "Future[object]":
        """Impure, or Dask would run equal calls once and give all of them that result."""
        future: Future[object] = self.client.submit(fn, *args, pure=False)
        return future

    def result(self, handle: "Future[object]") -> object:
        result: object = handle.result()
        return result

    def gather(self, handles: "Sequence[Future[object]]") -> list[object]:
        return list(self.client.gather(list(handles)))

    def map(self, fn: Callable[..., object], items: Iterable[object], chunksize: int | None = None) -> list[object]:
        """By a bag, Dask's own tool for many small items; Client.map makes a task of each.

        Left alone, a bag has partitions of sqrt(n) / 10 items: a hundred items each for a million.
        """
        bag = dask.bag.from_sequence(items, partition_size=chunksize)
        return list(bag.map(fn).compute(scheduler=self.client))

    def stop(self) -> None:
        if self._client is not None:
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()
