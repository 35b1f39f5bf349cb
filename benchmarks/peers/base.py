"""What every peer can do, in the words of the harness."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

Handle = TypeVar("Handle")


class Peer(Protocol[Handle]):
    """A pool of worker processes with somebody's library in between.

    The order of calls is start, any number of submit, result, gather and map, then stop. stop also works
    after a start that failed half way, because cleaning up happens on every path.
    """

    def start(self, workers: int) -> None:
        """Make the pool. It need not wait for its workers: workloads that need them up wait for them."""

    def submit(self, fn: Callable[..., object], /, *args: object) -> Handle:
        """Hand in one call, individually tracked, and return at once."""

    def result(self, handle: Handle) -> object:
        """Wait for one call and return what it returned."""

    def gather(self, handles: Sequence[Handle]) -> list[object]:
        """Wait for all, the way that users of this library would, and return the results in order."""

    def map(self, fn: Callable[..., object], items: Iterable[object], chunksize: int | None = None) -> list[object]:
        """Apply fn to each item and return the results in order.

        Parameters
        ----------
        chunksize
            Items per message. None is what the library does when nobody says anything.
        """

    def stop(self) -> None:
        """End the pool and every process that start began."""
