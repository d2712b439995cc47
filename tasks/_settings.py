"""params.yaml, the name a stage was called with, and the edge where a person's mistake becomes one line."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

PARAMS = Path("params.yaml")


class UserError(Exception):
    """A mistake a person can mend: the message names the thing, its value and the way out."""


def settings(block: str) -> dict[str, Any]:
    """One block of params.yaml, as keyword arguments for the function of that name.

    Raises UserError where the file or the block is missing.
    """
    everything = all_settings()
    if block not in everything:
        raise UserError(f"params.yaml has no block '{block}'; copy it from the project's own params.yaml")
    return everything[block] or {}


def all_settings() -> dict[str, Any]:
    """All of params.yaml. Raises UserError where it is missing or not YAML."""
    if not PARAMS.is_file():
        raise UserError(f"no params.yaml in {Path.cwd()}; run from the repository's root")
    try:
        return yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"params.yaml is not valid YAML: {' '.join(str(error).split())}") from None


def run(main: Callable[..., None]) -> None:
    """Call a stage's main with the release named on the command line, if any; print a UserError as one line.

    The stage dies with the process that started it (Linux): a killed dvc must not leave a GPU busy.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    noun = Path(sys.argv[0]).stem
    try:
        main(*sys.argv[1:])
    except UserError as error:
        print(f"{noun}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{noun}: stopped; what is finished is kept and the next run goes on from there", file=sys.stderr)
        sys.exit(130)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    if "torch" in sys.modules or "onnxruntime" in sys.modules:
        os._exit(0)  # their worker threads can hang at interpreter shutdown; everything is written by now
