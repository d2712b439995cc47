"""Files are listed and read below their root and nowhere else, on this machine and at an address."""

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tasks import _files, _sources
from tasks._settings import UserError

EVERYTHING = lambda name: True  # noqa: E731


@pytest.fixture
def folder(in_folder: Path) -> Path:
    (in_folder / "set" / "more").mkdir(parents=True)
    (in_folder / "secret").write_bytes(b"secret")
    for name in ("a", "more/b", ".hidden"):
        (in_folder / "set" / name).write_bytes(name.encode())
    (in_folder / "set" / "out").symlink_to(in_folder / "secret")
    (in_folder / "set" / "within").symlink_to("a")
    return in_folder / "set"


def test_a_folder_is_listed_with_the_digests_of_its_own_files(folder: Path) -> None:
    root, found = _files.listing("set", EVERYTHING, _sources.Digests().of)
    assert root == "set" and list(found) == ["a", "more/b", "out", "within"] and found["out"] == (None, None)
    assert found["a"] == (1, "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb") == found["within"]
    assert _files.listing(f"file://{folder}/a", EVERYTHING, _sources.Digests().of) == (folder.as_posix(), {"a": found["a"]})
    with pytest.raises(UserError, match="nowhere does not exist"):
        _files.listing("nowhere", EVERYTHING, _sources.Digests().of)


@pytest.mark.parametrize(("name", "reason"), [
    ("../secret", "path leaves the folder"), ("/etc/passwd", "path leaves the folder"), ("out", "path leaves the folder"), ("a\0b", "path leaves the folder"),
    ("more", "a link to a folder"), ("missing", "listed, but not in the folder"), ("x" * 300, "not readable as a file: File name too long"),
])
def test_what_is_not_a_file_of_the_folder_is_not_read(folder: Path, name: str, reason: str) -> None:
    with pytest.raises(_files.Unreadable, match=reason):
        _files.content("set", name, 10)


def test_a_file_is_read_to_a_limit(folder: Path) -> None:
    assert _files.content("set", "within", 1) == b"a"
    with pytest.raises(_files.Unreadable, match="a file of more than 3 bytes"):
        _files.content("set", "more/b", 3)


def test_files_at_an_address_are_listed_without_being_read_and_change_with_what_the_system_tells(folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/listed/a.tar", b"one")
    memory.pipe_file("/listed/.hidden", b"x")
    read = lambda path: pytest.fail("nothing is downloaded")  # noqa: E731
    root, first = _files.listing("memory://listed", EVERYTHING, read)
    assert root == "memory://listed" and list(first) == ["a.tar"] and first["a.tar"][0] == 3 and len(str(first["a.tar"][1])) == 64
    assert _files.listing("memory://listed", EVERYTHING, read)[1] == first
    assert list(_files.listing("memory://listed/a.tar", EVERYTHING, read)[1]) == ["a.tar"]
    assert _files.content("memory://listed", "a.tar", 9) == b"one" == _files.content("memory://listed/a.tar", "a.tar", 9)
    memory.pipe_file("/listed/a.tar", b"other")
    assert _files.listing("memory://listed", EVERYTHING, read)[1] != first
    for name in ("../a", "/a", "file:///etc/passwd"):
        with pytest.raises(_files.Unreadable, match="path leaves the folder"):
            _files.content("memory://listed", name, 9)


def test_a_name_that_is_not_utf_8_is_listed_as_it_can_be_written(folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    assert "caf\\xe9.png" in _files.listing("set", EVERYTHING, _sources.Digests().of)[1]


class _Whole(http.server.SimpleHTTPRequestHandler):
    """A server that knows no parts of files, as Python's own does not."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Whole, directory=str(folder)))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


def test_a_server_that_gives_no_parts_of_files_is_named_where_parts_are_read(folder: Path, server: str) -> None:
    pytest.importorskip("aiohttp")
    (folder / "0.tar").write_bytes(b"tar")
    assert _files.content(server, "a", 10) == b"a"
    with pytest.raises(UserError, match=r"its server gives no parts of files .*; copy them here"):
        _files.opened(server, "0.tar")
