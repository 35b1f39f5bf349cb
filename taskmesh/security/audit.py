"""The audit log: who joined, which tickets were made and revoked, what admins did. JSON lines, for people and programs.

It is written by the hub, in its keys directory, and readable by the hub's user alone. The hub goes on when the disk
does not: that is said in the ordinary log, once, and the audit log goes on when it can. Fields hold no secrets: of keys
the fingerprint. Texts in them come from peers; JSON escapes what a terminal would obey.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

log = logging.getLogger("taskmesh.hub")

LARGEST = 10 << 20  # bytes, then a new file is begun
KEPT = 5  # older files, `audit.jsonl.1` being the newest


class Audit:
    """An audit log, opened for appending when something is written.

    Parameters
    ----------
    path
        The file.
    largest, kept
        From how many bytes on a new one is begun, and how many older ones are kept.
    """

    def __init__(self, path: Path, largest: int = LARGEST, kept: int = KEPT) -> None:
        self._path = path
        self._largest = largest
        self._kept = kept
        self._fd = -1
        self._failing = False

    def write(self, event: str, **fields: object) -> None:
        """Add a line. It never raises: a hub does not stop for its log.

        Parameters
        ----------
        event
            What happened, in a word.
        fields
            Its circumstances; what JSON has no form for is written as text.
        """
        line = json.dumps(entry(event, fields), default=str).encode() + b"\n"
        try:
            self._append(line)
            self._failing = False
        except OSError as error:
            self.close()  # so that the next one tries again from the start
            if not self._failing:
                log.error("the audit log %s cannot be written (%s): going on without", self._path, error.strerror)
            self._failing = True

    def _append(self, line: bytes) -> None:
        size = os.fstat(self._open()).st_size
        if size and size + len(line) > self._largest:
            self.close()
            self._rotate()
            size = os.fstat(self._open()).st_size
        if os.write(self._fd, line) < len(line):
            os.ftruncate(self._fd, size)  # half a line would spoil the next one
            raise OSError(None, "no space is left for a whole line")

    def _open(self) -> int:
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._path, flags, 0o600)
            os.fchmod(self._fd, 0o600)
        return self._fd

    def _rotate(self) -> None:
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, self._kept + 1))]
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, older)

    def close(self) -> None:
        """Close the file; another `write` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def entry(event: str, fields: Mapping[str, object]) -> dict[str, object]:
    """What happened, with the time."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"time": now, "event": event, **fields}
