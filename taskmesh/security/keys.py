"""CURVE keys as text: Z85, 40 characters, as ZeroMQ writes them. All cryptography is libzmq's.

zmq is imported when it is needed, because a script that only defines tasks needs no keys.
"""

from __future__ import annotations

import struct

KEY_CHARACTERS = 40


def new_pair() -> tuple[str, str]:
    """A fresh key pair: public, secret."""
    import zmq

    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def raw(key: str) -> bytes:
    """The 32 bytes of a key.

    Raises
    ------
    ValueError
        It is none.
    """
    from zmq.utils import z85

    if len(key) != KEY_CHARACTERS:
        raise ValueError(f"a key has {KEY_CHARACTERS} characters")
    try:
        return z85.decode(key)
    except (ValueError, KeyError, struct.error):
        raise ValueError("a key is in Z85") from None  # without a trace of what it was


def text(key: bytes) -> str:
    """A raw key as text."""
    from zmq.utils import z85

    return z85.encode(key).decode()


def is_key(key: object) -> bool:
    """Whether it is the text of a key."""
    try:
        return isinstance(key, str) and len(raw(key)) > 0
    except ValueError:
        return False


def is_pair(public: str, secret: str) -> bool:
    """Whether one is the other's public half."""
    import zmq

    return zmq.curve_public(secret.encode()) == public.encode()
