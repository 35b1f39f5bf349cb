"""Every error that taskmesh raises, from the widest to the narrowest.

What goes wrong with one task is a `TaskError` and is raised by that task's future. What goes wrong with the mesh is
raised by the call that met it. Our own mistakes (`LocalProtocolError`) and a peer's (`PeerProtocolError`) are
different types, because the first is a bug to report and the second a message to drop. The docstring of an error is
its default message.
"""

from __future__ import annotations


class TaskmeshError(Exception):
    """Something went wrong in taskmesh."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(args or ((type(self).__doc__ or type(self).__name__).splitlines()[0],)))


class TaskError(TaskmeshError):
    """The task did not return a result."""


class RemoteError(TaskError):
    """The task raised an exception that cannot travel.

    Attributes: `type_name` (qualified name of the original type), `message` (its text) and `remote_traceback`.
    """

    def __init__(self, type_name: str = "Exception", message: str = "", remote_traceback: str = "") -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        self.message = message
        self.remote_traceback = remote_traceback

    def __reduce__(self) -> tuple[type[RemoteError], tuple[str, str, str]]:
        return type(self), (self.type_name, self.message, self.remote_traceback)


class PayloadError(TaskError):
    """The arguments or the result of the task cannot be pickled or unpickled."""


class ModuleMissing(PayloadError, ModuleNotFoundError):
    """The worker cannot import a module that the task needs."""


class InitializerFailed(TaskError):
    """The mesh's initializer raised an exception in the runner, so the task was not started."""


class WorkerLost(TaskError):
    """The worker process died while running this task."""


class TaskTimeout(TaskError, TimeoutError):
    """The task ran longer than its timeout."""


class MemoryLimitExceeded(TaskError, MemoryError):
    """The task took more memory than its limit."""


class TaskInterrupted(BaseException):
    """Raised inside a running task whose client has cancelled it with `interrupt=True`.

    No `Exception`, so that `except Exception` in the task does not swallow it. Let it pass: a task that has not ended
    two seconds later is ended with its runner.
    """


class HubUnreachable(TaskmeshError, ConnectionError):
    """The hub cannot be reached."""


class RegistrationRefused(HubUnreachable):
    """The hub refused this peer."""


class WindowFull(TaskmeshError, TimeoutError):
    """Too much is unsettled, so the call was not submitted."""


class HubFull(TaskmeshError):
    """The hub did not take the task, which was never started."""


class MeshClosed(TaskmeshError, RuntimeError):
    """The mesh has been shut down."""


class MeshStartError(TaskmeshError, RuntimeError):
    """The private mesh did not start."""


class NestedMeshError(TaskmeshError, RuntimeError):
    """A task cannot submit tasks or open a mesh yet; return the work to the caller and submit it there."""


class AddressError(TaskmeshError, ValueError):
    """The address is not one that taskmesh understands."""


class TicketError(TaskmeshError):
    """The ticket cannot be used."""


class NoTicket(TicketError):
    """There is no ticket for this hub on this machine."""


class KeysError(TaskmeshError):
    """The hub's keys cannot be used."""


class StoreError(TaskmeshError):
    """The hub's store cannot be used."""


class LocalProtocolError(TaskmeshError):
    """A bug in taskmesh: one of its own state machines was driven in a way that its rules forbid."""


class IllegalTransition(LocalProtocolError):
    """A bug in taskmesh: a task was moved along an edge that its lifecycle does not have."""


class PeerProtocolError(TaskmeshError):
    """A peer sent something that the protocol does not allow."""


class RemoteTraceback(Exception):
    """Carries the traceback of a task to where its exception is printed, as the exception's `__cause__`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'

    def __reduce__(self) -> tuple[type[RemoteTraceback], tuple[str]]:
        return type(self), (self.text,)
