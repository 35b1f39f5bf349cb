"""Names that several processes have to derive alike: the text of a task's id, and the digest of a function."""

from __future__ import annotations

import hashlib

DIGEST_BYTES = 16


def task_id(session: int, spec: int, number: int) -> str:
    """What a task is called for people: session, function and number."""
    return f"{session:016x}-{spec}-{number}"


def digest_of(body: bytes) -> bytes:
    """The name of a pickled function: 16 bytes of BLAKE2b (RFC 7693)."""
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()
