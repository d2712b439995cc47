"""Files of a training set, on this machine or at an address that fsspec knows (s3://, gs://, https://, ...): the only file that imports it."""

import hashlib
import os
import re
import stat
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import fsspec

from tasks import _sources
from tasks._settings import TryAgain, UserError

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*(://|::)")
ONE_FILE = {".parquet", ".tar"}  # over https, a folder and a file look alike
CHANGES = ("size", "etag", "ETag", "Content-MD5", "md5Hash", "mtime", "LastModified", "last_modified", "Last-Modified", "created", "version_id")


class Unreadable(Exception):
    """A file that is not read; the message is the row's reason."""


def is_remote(path: str) -> bool:
    """Whether the path is an address, and not one of this machine (file://)."""
    return bool(ADDRESS.match(path)) and not path.startswith(("file://", "local://"))


def listing(path: str, is_wanted: Callable[[str], bool], digest_of: Callable[[Path], tuple[int, str]]) -> tuple[str, dict[str, tuple[int | None, str | None]]]:
    """The root, and size and digest of each file below it that is wanted, by its path relative to the root, in order.

    The digest is the sha256 of the bytes, which digest_of takes; of a remote file, that of what its file system tells of it (checksum,
    ETag, time), so that nothing is downloaded; None for what is no regular file in the folder. Raises UserError where there is no such path.
    """
    if is_remote(path):
        return path, _remote_listing(path, is_wanted)
    whole = Path(_plain(path)).expanduser()
    if not whole.exists():
        raise UserError(f"{path} does not exist")
    root, names = (whole, [*_sources.files(whole), *_linked_folders(whole)]) if whole.is_dir() else (whole.parent, [whole.name])
    found: dict[str, tuple[int | None, str | None]] = {}
    for name in sorted(names):
        if is_wanted(name):
            known = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            found[known] = digest_of(root / name) if known == name and _is_own_file(root, name) else (None, None)
    return root.as_posix(), found


def _linked_folders(root: Path) -> list[str]:
    """Links to folders: never followed, and each a row that says so."""
    return [(Path(folder) / f).relative_to(root).as_posix() for folder, folders, _ in os.walk(root) for f in folders if (Path(folder) / f).is_symlink()]


def _is_own_file(root: Path, name: str) -> bool:
    try:
        target = (root / name).resolve()
        return target.is_relative_to(_resolved(os.path.abspath(root))) and target.is_file()
    except (OSError, RuntimeError):  # RuntimeError: a loop of links
        return False


def _remote_listing(path: str, is_wanted: Callable[[str], bool]) -> dict[str, tuple[int | None, str | None]]:
    system, base = _located(path)
    try:
        files = {base: system.info(base)} if PurePosixPath(base).suffix in ONE_FILE else system.find(base, detail=True)
    except FileNotFoundError:
        files = {}
    except OSError as error:
        raise TryAgain(f"{path} cannot be listed now: {_first_line(error)}") from None
    if not files:
        raise UserError(f"{path} does not exist")
    found: dict[str, tuple[int | None, str | None]] = {}
    for place, info in sorted(files.items()):
        name = PurePosixPath(place).name if place == base else place.removeprefix(base).lstrip("/")
        if is_wanted(name) and not any(part.startswith(".") for part in name.split("/")):
            told = [str(system.ukey(place)), *(str(info.get(name)) for name in CHANGES)]
            found[name] = (info.get("size"), hashlib.sha256("\n".join(told).encode()).hexdigest())
    return found


def content(root: str, name: str, at_most: int) -> bytes:
    """The bytes of a file below root. Raises Unreadable with the reason where there is no such file in the folder, or it is larger."""
    with opened(root, name) as file:
        data = file.read(at_most + 1)
    if len(data) > at_most:
        raise Unreadable(f"a file of more than {at_most} bytes")
    return data


def opened(root: str, name: str) -> BinaryIO:
    """A file below root, for reading at any place in it. Raises Unreadable with the reason, TryAgain where a remote one does not come."""
    if "\0" in name or PurePosixPath(name).is_absolute():
        raise Unreadable("path leaves the folder")
    if is_remote(root):
        return _remote_file(root, name)
    folder = Path(_plain(root))
    try:
        target = (folder / name).resolve()
        if not target.is_relative_to(_resolved(os.path.abspath(folder))):
            raise Unreadable("path leaves the folder")
        kind = target.stat().st_mode
        if not stat.S_ISREG(kind):
            raise Unreadable("a link to a folder" if stat.S_ISDIR(kind) else "not a regular file")
        return target.open("rb")
    except FileNotFoundError:
        raise Unreadable("its name is not UTF-8" if "\\x" in name else "listed, but not in the folder") from None
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise Unreadable(f"not readable as a file: {getattr(error, 'strerror', None) or _first_line(error)}") from None


def _remote_file(root: str, name: str) -> BinaryIO:
    if ".." in PurePosixPath(name).parts or ADDRESS.match(name):
        raise Unreadable("path leaves the folder")
    system, base = _located(root)
    place = base if PurePosixPath(base).suffix in ONE_FILE else f"{base}/{name}".lstrip("/") if base else name
    try:
        file: BinaryIO = system.open(place, "rb")
        if PurePosixPath(place).suffix in ONE_FILE:
            _require_parts(root, file)
        return file
    except FileNotFoundError:
        raise Unreadable("listed, but not in the folder") from None
    except OSError as error:
        raise TryAgain(f"{root}/{name} cannot be read now: {_first_line(error)}") from None


_checked: set[str] = set()  # addresses whose server gives parts of a file


def _require_parts(root: str, file: BinaryIO) -> None:
    """Raise UserError where a server gives files as a whole only: of tars and Parquet files parts are read."""
    if root in _checked or not root.startswith("http"):
        return
    try:
        file.seek(1)
        file.read(1)
        file.seek(0)
    except ValueError as error:
        raise UserError(f"{root}: its server gives no parts of files ({_first_line(error)[:80]}); copy them here, and name the folder") from None
    _checked.add(root)


@lru_cache(maxsize=8)
def _located(path: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it. Raises UserError with the package it needs."""
    try:
        system, base = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise UserError(f"{path} is at an address that is not understood here: {_first_line(error)}") from None
    return system, base.rstrip("/")


@lru_cache(maxsize=8)
def _resolved(root: str) -> Path:
    return Path(root).resolve()


def _plain(path: str) -> str:
    return re.sub(r"^(file|local)://", "", path)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
