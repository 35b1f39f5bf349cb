"""What a user may write for an address, and what follows from it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskmesh.errors import AddressError
from taskmesh.transport.endpoints import CHANNELS, Address, is_socket_name, parse_address, parse_ports


@pytest.mark.parametrize(
    ("text", "address", "control"),
    [
        ("tcp://10.0.0.1:7000", Address("tcp", "10.0.0.1", 7000), "tcp://10.0.0.1:7000"),
        ("10.0.0.1:7000", Address("tcp", "10.0.0.1", 7000), "tcp://10.0.0.1:7000"),
        (" head.cluster ", Address("tcp", "head.cluster", 5555), "tcp://head.cluster:5555"),
        ("tcp://head:", Address("tcp", "head", 5555), "tcp://head:5555"),
        ("[::1]:7000", Address("tcp", "::1", 7000), "tcp://[::1]:7000"),
        ("tcp://[fe80::1%eth0]", Address("tcp", "fe80::1%eth0", 5555), "tcp://[fe80::1%eth0]:5555"),
        ("::1", Address("tcp", "::1", 5555), "tcp://[::1]:5555"),
        ("ipc:///tmp/mesh/", Address("ipc", "/tmp/mesh", 0), "ipc:///tmp/mesh/c"),
    ],
)
def test_an_address_is_read_as_it_is_meant(text: str, address: Address, control: str) -> None:
    assert parse_address(text) == address
    assert address.control == control


def test_channels_have_consecutive_ports_or_names_in_a_directory() -> None:
    tcp, ipc, free = Address("tcp", "::1", 7000), Address("ipc", "/tmp/mesh", 0), Address("tcp", "10.0.0.1", 0)
    names = ["control", "submit", "sink", "events"]
    assert [tcp.channel(name) for name in names] == [f"tcp://[::1]:{port}" for port in (7000, 7001, 7002, 7003)]
    assert [ipc.channel(name) for name in names] == [f"ipc:///tmp/mesh/{file}" for file in "csre"]
    assert {free.channel(name) for name in names} == {"tcp://10.0.0.1:0"}
    assert (tcp.lane(5600), ipc.lane(7)) == ("tcp://[::1]:5600", "ipc:///tmp/mesh/l7")


@pytest.mark.parametrize(
    "endpoint", [*map(Address("ipc", "/m", 0).channel, CHANNELS), Address("ipc", "/m", 0).lane(12)]
)
def test_a_hub_knows_its_own_sockets_by_their_names(endpoint: str) -> None:
    assert is_socket_name(endpoint.removeprefix("ipc:///m/"))


@pytest.mark.parametrize("name", ["lock", "l", "lx", "cs", "hub.db", ""])
def test_other_files_are_none_of_its_sockets(name: str) -> None:
    assert not is_socket_name(name)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no host"), ("tcp://", "no host"), (":5555", "no host"), ("a b", "no host"), ("a/b:1", "no host"),
        ("a]b::c", "no host"), ("http://a:1", "unknown scheme 'http'"), ("head:port", "'port' is not a port"),
        ("head:5_5", "is not a port"), ("head:+5", "is not a port"), ("head:٥", "is not a port"),
        ("head:0", "between 1 and 65535"), ("head:65536", "between 1 and 65535"), ("[::1]x", "is not a port"),
        ("ipc://tmp/x", "absolute path"), ("ipc:///" + "x" * 97, "at most 103 bytes"),
        ("ipc:///" + "ü" * 50, "at most 103 bytes"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_and_told_why(text: str, why: str) -> None:
    with pytest.raises(AddressError, match=why):
        parse_address(text)


def test_port_zero_makes_sense_only_where_one_listens() -> None:
    assert parse_address("head:0", port_zero=True).port == 0


@given(st.text() | st.from_regex(r"(tcp://|ipc://|)[\[\]a-z/.:%0-9]{1,12}", fullmatch=True))
@example("ipc:///")
def test_whatever_is_accepted_is_written_as_it_is_read(text: str) -> None:
    with contextlib.suppress(AddressError):
        address = parse_address(text)
        assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", False),
     ("10.0.0.1", False), ("head", False)],
)  # fmt: skip
def test_only_loopback_addresses_are_local(host: str, local: bool) -> None:
    assert Address("tcp", host, 1).is_local is local


def test_a_directory_is_local() -> None:
    assert Address("ipc", "/tmp/x", 0).is_local


def test_a_range_of_ports_is_read() -> None:
    assert parse_ports("5600-6599") == (5600, 6599)
    assert parse_ports("5600") == (5600, 5600)


@pytest.mark.parametrize("text", ["", "-", "a-b", "6599-5600", "0-5", "5-65536", "1-2-3"])
def test_what_is_no_range_of_ports_is_refused(text: str) -> None:
    with pytest.raises(AddressError, match="range of ports"):
        parse_ports(text)


@pytest.mark.parametrize("text", ["ipc:///tmp/\ud800", "ipc:///tmp/a\0b"])
def test_a_path_that_no_file_system_can_hold_is_no_address(text: str) -> None:
    with pytest.raises(AddressError, match="no path can hold"):
        parse_address(text)
