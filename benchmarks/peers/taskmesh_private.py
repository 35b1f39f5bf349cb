"""taskmesh as a script gets it: `Mesh(workers=2)`, a private mesh on this machine."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future

from taskmesh import Mesh


class Adapter:
    """A private mesh."""

    def __init__(self) -> None:
        self._mesh: Mesh | None = None

    def start(self, workers: int) -> None:
        self._mesh = Mesh(workers=workers)

    @property
    def mesh(self) -> Mesh:
        assert self._mesh is not None, "start() comes first"
        return self._mesh

    @property
    def submit(self) -> Callable[..., Future[object]]:
        """The mesh's own method, bare, so that no wrapper of the harness is measured."""
        return self.mesh.submit

    def result(self, handle: Future[object]) -> object:
        return handle.result()

    def gather(self, handles: Sequence[Future[object]]) -> list[object]:
        return [handle.result() for handle in handles]

    def map(self, fn: Callable[..., object], items: Iterable[object], chunksize: int | None = None) -> list[object]:
        """taskmesh cuts its own chunks, so there is no chunk size to pass on."""
        return list(self.mesh.map(fn, items))

    def stop(self) -> None:
        if self._mesh is not None:
            self._mesh.shutdown()
