"""Files that are secrets: read only if nobody else could have read or written them, written so that nobody ever can.

What is wrong with a file is an `OSError`, or an `Unsafe` with words for people; the callers, which know what the file
is for, turn both into errors of their own. The contents of a file are never part of either.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

LARGEST = 64 * 1024
"""No file that is read here has a reason to be longer, in bytes."""
CHOOSE = "choose a directory of your own"


class Unsafe(Exception):
    """A file cannot be trusted with a secret, and why."""


def read_private(path: Path, what: str, harm: str, *, shared: bool = False, largest: int = LARGEST) -> bytes:
    """The contents of a file that only its owner can read.

    Parameters
    ----------
    path
        The file; symbolic links are followed, and what they lead to is judged.
    what, harm
        What it is, and what others could do with it, in words: "ticket", "could act as you".
    shared
        Whether it may come from root, who may let one group read it: so a service manager or Kubernetes hands secrets
        to processes that are not root. And whether root may read a file of somebody else.
    largest
        Its length in bytes at most.

    Raises
    ------
    Unsafe
        Others can read or change it, or it is no file that we would have written; with the remedy.
    OSError
        It cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)  # a pipe must not make us wait
    with open(fd, "rb") as file:
        status = os.fstat(fd)  # of what is open: the name may lead elsewhere by now
        if not stat.S_ISREG(status.st_mode):
            raise Unsafe("it is not a regular file")
        check_owner(path, status, what, harm, shared=shared)
        if status.st_size > largest:
            raise Unsafe(f"it has more than {largest} bytes")
        data = file.read(largest + 1)
    if len(data) > largest:
        raise Unsafe(f"it has more than {largest} bytes")
    return data


def check_owner(
    path: Path, status: os.stat_result, what: str, harm: str, *, shared: bool = False, ours: bool = True
) -> None:
    """Refuse what belongs to another user, or what others can read or change; the parameters are `read_private`'s.

    `ours`: whether it is surely what was meant. A system needs some of its directories as they are.

    Raises
    ------
    Unsafe
        With the remedy.
    """
    me, owner = os.geteuid(), status.st_uid
    directory = stat.S_ISDIR(status.st_mode)
    if owner != me and not (shared and 0 in (me, owner)):
        remedy = "chown it to yourself, or move it"
        if directory:
            remedy = f"run this as that user, or {CHOOSE}" if me == 0 else CHOOSE
        raise Unsafe(f"this {what} belongs to another user (uid {owner}), who {harm}; {remedy}")
    others = 0o037 if shared and owner == 0 != me else 0o077
    if stat.S_IMODE(status.st_mode) & others:
        verb = "enter" if directory else "read" if stat.S_IMODE(status.st_mode) & 0o044 else "change"
        remedy = f"chmod {'700' if directory else '600'} {quoted(path)}" if ours else CHOOSE
        raise Unsafe(f"others can {verb} this {what}, and {harm}; {remedy}")


def holds_only(directory: Path, own: Callable[[str], object]) -> bool:
    """Whether nothing but files with names that are our `own` is in a directory, so that nobody else needs it."""
    try:
        return all(own(name) for name in os.listdir(directory))
    except OSError:
        return False


def quoted(path: Path) -> str:
    """`path` as one would type it in a shell."""
    return shlex.quote(str(path))


def write_private(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file that only we can read: all of it or nothing, and on the disk when this returns.

    Parameters
    ----------
    path
        The file; its directory exists.
    data
        Its contents.
    replace
        Whether one that exists is replaced.

    Raises
    ------
    FileExistsError
        It exists and shall not be replaced.
    OSError
        It cannot be written: nothing has changed.
    """
    if not replace:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))  # the name is ours now
    try:
        write_private_all({path: data})
    except BaseException:
        if not replace:
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def write_private_all(files: Mapping[Path, bytes]) -> None:
    """Write files that only we can read, and wait for the disk less often than one by one.

    They get their names when all are on the disk, in the order of the mapping: what depends on others comes last.

    Parameters
    ----------
    files
        The contents of each. Their directories exist; files that exist are replaced.

    Raises
    ------
    OSError
        They cannot be written. Nothing has changed, unless the names could be given to some of them only.
    """
    new = {path: path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.new") for path in files}
    with contextlib.ExitStack() as cleared:
        for path in new.values():
            cleared.callback(path.unlink, missing_ok=True)
        with contextlib.ExitStack() as opened:
            written = [opened.enter_context(_write_new(new[path], data)) for path, data in files.items()]
            for file in written:  # after all are written: the first wait takes most of the others along
                os.fsync(file)
        for path in files:
            os.replace(new[path], path)
        cleared.pop_all()
    for directory in {path.parent for path in files}:
        _sync_directory(directory)


@contextlib.contextmanager
def _write_new(path: Path, data: bytes) -> Iterator[int]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)  # a umask may have taken even the owner's rights away
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        yield fd
    finally:
        os.close(fd)


def _sync_directory(directory: Path) -> None:
    """So that the new name survives a loss of power. Some file systems cannot do that, and lose nothing else."""
    with contextlib.suppress(OSError):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def make_private(directory: Path) -> None:
    """Make a directory, and those above it that are missing, for us alone.

    Raises
    ------
    OSError
        It cannot be made, or is no directory.
    """
    missing = []
    place = directory
    while not place.is_dir():
        if place.exists() or place.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        missing.append(place)
        place = place.parent
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)


def reason(error: OSError | Unsafe) -> str:
    """What went wrong with a file, in words."""
    return str(error) if isinstance(error, Unsafe) else error.strerror or str(error)
