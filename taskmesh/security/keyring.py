"""A hub's keys directory: its key pair, its register of tickets, and the tickets for this machine.

Rules:

- One process uses a directory at a time: a hub as long as it runs, or a command while it changes something.
- The register is replaced as a whole, and memory follows the file. So after any failure both say the same.
- Of a ticket the register knows the public half alone. `hub.key` is the one secret here that opens everything: a hub
  can be impersonated with it, though nobody's traffic of the past be read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from ..core.access import NEVER, Grant, Role
from ..errors import KeysError, TicketError
from . import grants as register
from . import keys, toml
from .files import Unsafe, check_owner, holds_only, make_private, quoted, read_private, reason, write_private_all
from .grants import FORMAT, damaged, newer
from .places import LOCK
from .ticket import Ticket, iso, load_ticket, name_fault, ticket_text, write_ticket

HUB_KEY, GRANTS, AUDIT = "hub.key", "grants.json", "audit.jsonl"
OWN = re.compile(r"hub\.key|grants\.json|lock|.*\.ticket|audit\.jsonl.*|\..*\.new")
HARM = "could let anybody in"
LARGEST_REGISTER = 16 << 20  # bytes; some 80,000 tickets
LOCK_TRIES, LOCK_AGAIN_S = 5, 0.02  # a command that looks whether a hub runs holds the lock for an instant


class KeysInUse(KeysError):
    """Another process uses the hub's keys."""


class Keyring:
    """The keys of one hub, open. Use `open`.

    Attributes: `directory`, `public_key` and `secret_key` (Z85 text), `grants` (every ticket that ever was).
    """

    def __init__(self, directory: Path, lock: int) -> None:
        self.directory = directory
        self._lock = lock
        self.public_key = self.secret_key = ""
        self.grants: list[Grant] = []

    def __repr__(self) -> str:
        return f"<Keyring {self.directory} with {len(self.grants)} tickets>"

    @classmethod
    def open(cls, directory: Path) -> Keyring:
        """Open a directory of keys; the first time, make it and the hub's key pair.

        Parameters
        ----------
        directory
            Where; it and what is missing above it are made with mode 0700.

        Raises
        ------
        KeysInUse
            Another hub has it, or a command that changes it right now.
        KeysError
            It cannot be made or read, others can enter it, or a file in it is damaged; with the remedy.
        """
        directory = directory.absolute()
        try:
            make_private(directory)
            check_owner(directory, directory.stat(), "directory", HARM, ours=holds_only(directory, OWN.fullmatch))
        except (OSError, Unsafe) as error:
            raise KeysError(f"cannot keep keys in {directory}: {reason(error)}") from None
        keyring = cls(directory, _lock(directory))
        try:
            keyring._load()
        except BaseException:
            keyring.close()
            raise
        return keyring

    def close(self) -> None:
        """Let others use the directory."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def move(self, directory: Path) -> None:
        """Have the directory somewhere else, where nothing is: a hub learns its free port only after it has keys.

        Raises
        ------
        KeysError
            It cannot be moved.
        """
        try:
            self.directory.rename(directory)
        except OSError as error:
            raise KeysError(f"cannot keep keys in {directory}: {error.strerror}") from None
        self.directory = directory

    def remove(self) -> None:
        """Close, and remove the directory: the keys of a hub on a free port are of no use without it."""
        if self._lock >= 0:
            shutil.rmtree(self.directory, ignore_errors=True)
        self.close()

    # ---- tickets --------------------------------------------------------------------------------------------

    def first_tickets(self, address: str) -> None:
        """Make the tickets `admin`, `client` and `worker` for processes of this user, unless there are any.

        Parameters
        ----------
        address
            The hub's address for them. Where it is another than in the files, the files are changed.

        Raises
        ------
        KeysError
            They cannot be written.
        """
        known = {grant.name: grant for grant in self.grants}
        made: dict[Path, bytes] = {}
        grants = list(self.grants)
        try:
            for role in Role:
                path = self.ticket_path(role.value)
                if role.value not in known:
                    ticket = self._new_ticket(role, address)
                    made[path] = ticket_text(ticket).encode()
                    grants.append(Grant(role.value, role, keys.raw(ticket.public_key), time.time(), NEVER))
                elif path.exists():
                    self._readdress(path, known[role.value], address)
        except (TicketError, ValueError) as error:  # ValueError: a ticket for this address could not be read again
            raise KeysError(str(error)) from None
        if made:
            self._save(grants, made)

    def _new_ticket(self, role: Role, address: str) -> Ticket:
        public, secret = keys.new_pair()
        return Ticket(address, self.public_key, public, secret, role, role.value)

    def ticket_path(self, name: str) -> Path:
        """Where the ticket of that name is, if it is one for this machine."""
        return self.directory / f"{name}.ticket"

    def _readdress(self, path: Path, grant: Grant, address: str) -> None:
        ticket = load_ticket(path)
        if keys.raw(ticket.public_key) != grant.key or (ticket.hub, ticket.hub_key) == (address, self.public_key):
            return
        write_ticket(path, replace(ticket, hub=address, hub_key=self.public_key))

    def create(self, name: str, role: Role, public_key: bytes, created_at: float, expires_at: float) -> Grant:
        """Record a ticket.

        Parameters
        ----------
        name
            Of at most 60 printable characters; no two tickets ever have the same.
        role
            What it is for.
        public_key
            Its 32 bytes.
        created_at, expires_at
            Seconds since the epoch; `NEVER`: it does not expire.

        Raises
        ------
        KeysError
            The name or the key cannot be used, or the register cannot be written: nothing has changed.
        """
        fault = name_fault(name)
        if fault is not None:
            raise KeysError(f"the name of a ticket {fault}; choose another")
        for grant in self.grants:
            if grant.name == name:
                ended = grant.objection(created_at)
                raise KeysError(
                    f"{ended}, and its name is not used twice; choose another"
                    if ended
                    else f"there is a ticket {name!r}; choose another name"
                )
            if grant.key == public_key:
                raise KeysError(f"the ticket {grant.name!r} has this key; every ticket has its own")
        if len(public_key) != 32:
            raise KeysError("a public key has 32 bytes")
        if public_key == keys.raw(self.public_key):
            raise KeysError("the hub's own key is not one for a ticket")
        new = Grant(name, role, public_key, created_at, expires_at)
        self._save([*self.grants, new])
        return new

    def revoke(self, name: str, now: float) -> Grant:
        """Record that a ticket is good no more, and remove its file if it is in this directory.

        Parameters
        ----------
        name
            The ticket's.
        now
            Seconds since the epoch.

        Raises
        ------
        KeysError
            There is none, it was revoked before, it is the last with which anybody could manage this hub, or the
            register cannot be written: nothing has changed.
        """
        grant = next((grant for grant in self.grants if grant.name == name), None)
        if grant is None:
            raise KeysError(f"there is no ticket {name!r}; see: taskmesh ticket list")
        if grant.revoked_at < NEVER:
            raise KeysError(f"the ticket {name!r} was revoked on {iso(grant.revoked_at)}")
        admins = [g for g in self.grants if g.role is Role.ADMIN and g.objection(now) is None]
        if admins == [grant]:
            raise KeysError(
                f"{name!r} is the last admin ticket: without one nobody could manage this hub. "
                f"Create another first: taskmesh ticket create --role admin --name NAME"
            )
        revoked = grant._replace(revoked_at=now)
        self._save([revoked if g is grant else g for g in self.grants])
        self._remove_ticket(revoked)
        return revoked

    def _remove_ticket(self, grant: Grant) -> None:
        """So that nobody finds it, and is refused, where another would do. It is a courtesy: it opens nothing."""
        path = self.ticket_path(grant.name)
        with contextlib.suppress(OSError, TicketError):
            if path.exists() and keys.raw(load_ticket(path).public_key) == grant.key:
                path.unlink()

    # ---- files ----------------------------------------------------------------------------------------------

    def _load(self) -> None:
        tickets, pair = self.directory / GRANTS, self.directory / HUB_KEY
        if pair.exists():
            self.public_key, self.secret_key = _pair(_read(pair), pair)
        elif tickets.exists():
            raise KeysError(
                f"{pair} is missing, and every ticket depends on it: put it back from a copy; or, to start anew, "
                f"move {quoted(self.directory)} away: the hub makes new keys, and everybody needs a new ticket"
            )
        else:
            self._make_pair(pair)
        if tickets.exists():
            self.grants = register.read(_read(tickets, LARGEST_REGISTER), tickets)
        elif (self.directory / AUDIT).exists() and any(self.directory.glob("*.ticket")):
            # no first start that was cut off: that leaves no tickets, or no audit log yet
            raise KeysError(
                f"{tickets} is missing, and says which tickets are good: put it back from a copy; or, to start anew, "
                f"move {quoted(self.directory)} away: the hub makes new keys, and everybody needs a new ticket"
            )

    def _make_pair(self, path: Path) -> None:
        public, secret = keys.new_pair()
        comments = [
            "The key pair of a taskmesh hub: whoever can read this file can pose as the hub.",
            "It never leaves this machine.",
        ]
        text = toml.document(comments, {"hub": FORMAT, "public_key": public, "secret_key": secret})
        _write({path: text.encode()})
        self.public_key, self.secret_key = public, secret

    def _save(self, grants: list[Grant], before: Mapping[Path, bytes] = MappingProxyType({})) -> None:
        """Write the register, and files that have to be there before it says so."""
        if self._lock < 0:
            raise KeysError(f"the keys in {self.directory} are closed")
        _write({**before, self.directory / GRANTS: register.written(grants)})
        self.grants = grants


# ---- reading and writing --------------------------------------------------------------------------------------------


def _lock(directory: Path) -> int:
    try:
        for left in reversed(range(LOCK_TRIES)):
            fd = _try_lock(directory / LOCK)
            if fd is not None:
                return fd
            if left:
                make_private(directory)
                time.sleep(LOCK_AGAIN_S)
    except OSError as error:
        raise KeysError(f"cannot keep keys in {directory}: {reason(error)}") from None
    raise KeysInUse(
        f"the keys in {directory} are in use by another hub (or a `taskmesh ticket` that runs just now); "
        f"choose another directory with --keys"
    )


def _try_lock(path: Path) -> int | None:
    """The lock, as a descriptor; None: another process has it, or a sweep has removed it under our hands."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), path.stat()):
            return fd
    except (FileNotFoundError, BlockingIOError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _read(path: Path, largest: int = 1 << 16) -> bytes:
    try:
        return read_private(path, "file", HARM, largest=largest)
    except Unsafe as error:
        raise KeysError(f"{path}: {error}") from None
    except OSError as error:
        raise KeysError(f"{path} cannot be read ({reason(error)})") from None


def _write(files: Mapping[Path, bytes]) -> None:
    try:
        write_private_all(files)
    except OSError as error:
        where = next(iter(files)) if len(files) == 1 else next(iter(files)).parent
        so = "nothing has changed" if len(files) == 1 else "no ticket is good that was not good before"
        raise KeysError(f"{where} cannot be written ({reason(error)}); {so}") from None


def _pair(data: bytes, path: Path) -> tuple[str, str]:
    try:
        table = toml.table(data)
    except ValueError as error:
        raise damaged(path, str(error)) from None
    if type(table.get("hub")) is int and table["hub"] > FORMAT:
        raise newer(path)
    public, secret = table.get("public_key"), table.get("secret_key")
    if not (isinstance(public, str) and isinstance(secret, str) and keys.is_key(public) and keys.is_key(secret)):
        raise damaged(path, "it holds no pair of keys")
    if not keys.is_pair(public, secret):
        raise damaged(path, "its keys do not belong together")
    return public, secret
