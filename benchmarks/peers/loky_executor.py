"""loky, the executor below joblib: a ProcessPoolExecutor that is reused, and pickles with cloudpickle."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

from joblib.externals.loky import ProcessPoolExecutor, get_reusable_executor


class Adapter:
    """The reusable executor."""

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None

    def start(self, workers: int) -> None:
        self._executor = get_reusable_executor(max_workers=workers)

    @property
    def executor(self) -> ProcessPoolExecutor:
        assert self._executor is not None, "start() comes first"
        return self._executor

    @property
    def submit(self) -> Callable[..., Future[object]]:
        """The executor's own method, bare, so that no wrapper of the harness is measured."""
        return self.executor.submit

    def result(self, handle: Future[object]) -> object:
        return handle.result()

    def gather(self, handles: Sequence[Future[object]]) -> list[object]:
        return [handle.result() for handle in handles]

    def map(self, fn: Callable[..., object], items: Iterable[object], chunksize: int | None = None) -> list[object]:
        """Its own default is one item per message."""
        return list(self.executor.map(fn, items, chunksize=chunksize or 1))

    def stop(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, kill_workers=True)
