"""Releases as they appear: pipelines in a folder of releases, commits of the Hub. Only names, sizes and times are looked at here."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks import _shards, _sources
from tasks._settings import TryAgain, UserError

INDEX = "model_index.json"
LONGEST_NAME = 48  # of what a release is called after its folder, so that 8 digits can follow


@dataclass(frozen=True)
class Candidate:
    """What may be a release: where it is, what it would be called, its entry of params.yaml."""

    place: str  # folder, or owner/name of the Hub
    name: str
    entry: dict[str, Any]  # model and revision
    mark: str  # another one whenever a file of it is: by path, size and time, or by the commit
    is_whole: bool  # a commit is never there by half; a folder is when it has the same mark at two looks


def in_folder(folder: str) -> list[Candidate]:
    """The pipelines in a folder of releases, by name; links to folders are left out. Raises UserError where there is no such folder."""
    root = Path(folder).expanduser()
    if not os.path.isdir(root):
        raise UserError(f"watch.folders: {folder} does not exist; name a folder of releases")
    try:
        found = sorted(path for path in root.iterdir() if os.path.isdir(path) and not path.is_symlink() and not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"watch.folders: {folder} cannot be read: {error.strerror}") from None
    there = [path for path in found if path.name.isprintable() and os.path.isfile(path / INDEX)]  # unlike Path's, False where it may not be read
    return [Candidate(str(path), _name(path.name), {"model": str(path), "revision": None}, _mark(path), is_whole=False) for path in there]


def is_as_it_was(candidate: Candidate) -> bool:
    """Whether no file of it has changed since it was found; of a commit none can."""
    return candidate.is_whole or _mark(Path(candidate.place).expanduser()) == candidate.mark


def _mark(root: Path) -> str:
    """16 digits of path, size and time of everything below a folder, hidden files too: programs that fetch write into those."""
    found = []
    for folder, _, names in os.walk(root, followlinks=False):
        for name in names:
            path = Path(folder) / name
            try:
                said = path.lstat()
            except OSError:
                continue  # gone since it was listed: the next look has another mark
            found.append((os.fsencode(path.relative_to(root)).hex(), said.st_mode, said.st_size, said.st_mtime_ns))
    return _shards.fingerprint(sorted(found))


def on_hub(source: str) -> list[Candidate]:
    """The newest commit of a repository (owner/name), or of every pipeline of an organisation or user (owner).

    Raises UserError where there is none such, TryAgain where the Hub does not answer.
    """
    from huggingface_hub import HfApi, errors

    hub = HfApi()
    try:
        if "/" in source:
            said = [hub.model_info(source)]
        else:
            said = [model for model in hub.list_models(author=source, full=True) if any(file.rfilename == INDEX for file in model.siblings or [])]
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise UserError(f"watch.hub: {source} is not found: {_first_line(error)}") from None
    except Exception as error:  # of whichever client the Hub's library is made with: it has changed twice
        raise TryAgain(f"watch.hub: {source} cannot be asked for now: {_first_line(error)}") from None
    return [_commit(model.id, model.sha) for model in said if _sources.REVISION.fullmatch(str(model.sha))]


def _commit(repository: str, sha: str) -> Candidate:
    name = f"{_name(repository.rpartition('/')[2])}-{sha[:8]}"
    return Candidate(repository, name, {"model": repository, "revision": sha}, sha, is_whole=True)


def _name(said: str) -> str:
    """A release's name after a folder's or a repository's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", said).strip("-._")[:LONGEST_NAME] or "release"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
