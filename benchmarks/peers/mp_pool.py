"""multiprocessing.Pool, the fastest pool of the standard library, with the platform's own start method."""

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.pool import AsyncResult, Pool


class Adapter:
    """A Pool."""

    def __init__(self) -> None:
        self._pool: Pool | None = None

    def start(self, workers: int) -> None:
        self._pool = multiprocessing.Pool(workers)

    @property
    def pool(self) -> Pool:
        assert self._pool is not None, "start() comes first"
        return self._pool

    def submit(self, fn: Callable[..., object], /, *args: object) -> AsyncResult[object]:
        return self.pool.apply_async(fn, args)

    def result(self, handle: AsyncResult[object]) -> object:
        return handle.get()

    def gather(self, handles: Sequence[AsyncResult[object]]) -> list[object]:
        return [handle.get() for handle in handles]

    def map(self, fn: Callable[..., object], items: Iterable[object], chunksize: int | None = None) -> list[object]:
        return self.pool.map(fn, items, chunksize)

    def stop(self) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()
