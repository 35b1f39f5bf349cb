"""The bytes in docs/protocol.md are what is sent: somebody will write a peer by them."""

from __future__ import annotations

import pickle
import re
from hashlib import blake2b
from math import gcd
from pathlib import Path

import pytest

from taskmesh.core import messages as m
from taskmesh.core.chunk import Chunk, pack_sizes
from taskmesh.wire.messages import Message, encode
from taskmesh.wire.stream import ACK, PROTOCOL_VERSION, open_envelope

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
SESSION, INCARNATION = 0x0123456789ABCDEF, 0xA1B2C3D4E5F60718
BODY = pickle.dumps(gcd, 5)
DIGEST = blake2b(BODY, digest_size=16).digest()
LEAF = pickle.dumps((12, 18), 5)
SENT: dict[str, tuple[Message, int, int]] = {
    "Spec": (m.Spec(1, "gcd", DIGEST, b"", 0), 1, 0),
    "Body": (m.Body(DIGEST, BODY), 2, 0),
    "Submit": (m.Submit(1, Chunk(0, 0, 1, pack_sizes([len(LEAF)]), b"", 1, LEAF)), 3, 0),
    "Results": (m.Results([m.Outcome(1, 0, 0, 1, m.Form.LIST, pickle.dumps([6], 5))]), 1, 3),
    "Close": (m.Close(), 4, 1),
    "Goodbye": (m.Goodbye("session closed"), 2, 4),
}
ASKED: dict[str, Message] = {
    "Register": m.Register(
        "client", SESSION, 1, 0, 0, 0, "demo", "laptop", 4711, 0, "0.1.0", "3.11", bytes(range(32)), bytes(range(16))
    ),
    "Registered": m.Registered(
        INCARNATION, 1, False, 0, "tcp://127.0.0.1:7600", "tcp://127.0.0.1:7556", "0.1.0", 1 << 30
    ),
}


def block(name: str) -> bytes:
    """The bytes of the code block that follows the name of a message in bold."""
    example = DOCUMENT.read_text().split("## An example in bytes")[1]
    found = re.search(rf"\*\*{name}\*\*[^`]*```\n(.*?)```", example, re.DOTALL)
    assert found is not None, f"no bytes of {name}"
    read = bytearray()
    for line in found[1].splitlines():
        for token in line.split():
            if not re.fullmatch("[0-9a-f]{2}", token):
                break
            read.append(int(token, 16))
    return bytes(read)


@pytest.mark.parametrize("name", ASKED)
def test_a_message_on_control_is_as_documented(name: str) -> None:
    assert block(name).hex(" ") == (bytes([PROTOCOL_VERSION]) + encode(ASKED[name])).hex(" ")


@pytest.mark.parametrize("name", SENT)
def test_a_message_of_the_link_is_as_documented(name: str) -> None:
    message, seq, ack = SENT[name]
    envelope = open_envelope(block(name))
    assert (envelope.epoch, envelope.incarnation, envelope.seq, envelope.ack) == (1, INCARNATION, seq, ack)
    assert envelope.body.hex(" ") == encode(message).hex(" ")


def test_an_acknowledgement_is_as_documented() -> None:
    envelope = open_envelope(block("ACK"))
    assert (envelope.flags, envelope.epoch, envelope.seq, envelope.ack, len(envelope.body)) == (ACK, 1, 0, 3, 0)
