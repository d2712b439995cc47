"""params.yaml, and the two kinds of errors that are for people."""

from pathlib import Path
from typing import Any

import yaml

PARAMS = Path("params.yaml")


class UserError(Exception):
    """A mistake a person can mend: the message names the thing, its value and the way out."""


class TryAgain(UserError):
    """Nothing to mend: it passes by itself (another process at work, a network that does not answer)."""


class _Block(dict[str, Any]):
    """A block of params.yaml that names what is missing in it, also merged with further settings."""

    def __init__(self, name: str, held: dict[str, Any]) -> None:
        super().__init__(held)
        self.name = name

    def __missing__(self, key: str) -> Any:
        raise UserError(f"params.yaml has no {self.name}.{key}; copy the line from the project's own params.yaml")

    def __or__(self, other: dict[str, Any]) -> "_Block":  # type: ignore[override]
        return _Block(self.name, {**self, **other})


def settings(block: str) -> dict[str, Any]:
    """One block of params.yaml, as keyword arguments for the function of that name.

    Raises UserError where the file or the block is missing.
    """
    everything = all_settings()
    if block not in everything:
        raise UserError(f"params.yaml has no block '{block}'; copy it from the project's own params.yaml")
    return _Block(block, everything[block] or {})


def all_settings() -> dict[str, Any]:
    """All of params.yaml. Raises UserError where it is missing or not YAML."""
    if not PARAMS.is_file():
        raise UserError(f"no params.yaml in {Path.cwd()}; run from the repository's root")
    try:
        return yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"params.yaml is not valid YAML: {' '.join(str(error).split())}") from None
