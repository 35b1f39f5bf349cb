"""What `--store` can say."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from taskmesh.errors import StoreError
from taskmesh.store import Store, default_store_url, opener, store_path
from taskmesh.store.sqlite import SqliteStore


def opened(url: str) -> Store:
    open_store = opener(url)
    assert open_store is not None
    return open_store(lambda: None)


def test_memory_and_sqlite_are_what_there_is(tmp_path: Path) -> None:
    assert opener("memory") is None
    store = opened(f"sqlite://{tmp_path}/a?b=c%20 d.db")
    assert isinstance(store, SqliteStore)
    store.close()
    assert (tmp_path / "a?b=c%20 d.db").exists()  # a path is taken as it is


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("sqlite:hub.db", "hub.db"),
        ("sqlite://var/hub.db", "var/hub.db"),
        ("sqlite:/var/hub.db", "var/hub.db"),
        ("sqlite:", "path/to/hub.db"),
        ("sqlite:///", "path/to/hub.db"),
    ],
)
def test_a_file_is_named_by_an_absolute_path(url: str, meant: str) -> None:
    with pytest.raises(StoreError, match=re.escape(f"Write sqlite://{Path.cwd() / meant}")):
        store_path(url)


def test_the_shells_tilde_is_not_taken_for_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StoreError, match=re.escape(f"Write sqlite://{tmp_path}/hub.db")):
        store_path("sqlite:///~/hub.db")


@pytest.mark.parametrize("url", ["", "memory:", "redis://localhost", "/var/hub.db", "postgres:///x", "sqlite"])
def test_what_is_no_store_is_refused_with_a_list_of_what_there_is(url: str) -> None:
    with pytest.raises(StoreError, match=r"sqlite:///ABSOLUTE/PATH .* or memory"):
        store_path(url)


def test_the_default_is_in_the_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_store_url(5555) == f"sqlite://{tmp_path}/taskmesh/hub-5555.db"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # to be ignored, says the XDG specification
    monkeypatch.setenv("HOME", "/home/me")
    assert default_store_url(1) == "sqlite:///home/me/.local/state/taskmesh/hub-1.db"


def test_hubs_in_different_directories_have_different_stores() -> None:
    names = ["/run/a/b", "/run/a-b", "/run/ä/b", "x" * 100, "x" * 101, "..", "run"]
    urls = [default_store_url(name) for name in names]
    assert len(set(urls)) == len(urls)
    for url in urls:
        path = store_path(url)
        assert path is not None and path.parent.name == "taskmesh" and len(path.name) < 100


def test_file_and_directories_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        opened(f"sqlite://{tmp_path}/state/taskmesh/hub.db").close()
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / p).stat().st_mode) for p in ("state", "state/taskmesh", "state/taskmesh/hub.db")]
    assert modes == [0o700, 0o700, 0o600]
