"""The edge of every stage: one at a time, dead with the process that started it, a person's mistake in one line."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tasks import _shards
from tasks._settings import TryAgain, UserError

STOPPED = 130
TEMPORARY_FAILURE = 75  # EX_TEMPFAIL: nothing to mend, try again


def run(main: Callable[..., None]) -> None:
    """Call a stage's main with the release named on the command line, if any, as the only process at it.

    A UserError is printed as one line. The exit code is 1 for a mistake to mend, 75 for what passes by itself.
    """
    noun, arguments = Path(sys.argv[0]).stem, sys.argv[1:]
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs deaf to it
    code = 0
    try:
        with _shards.lock("-".join([noun, *arguments])):
            _shards.sweep(_shards.WORK / noun)
            main(*arguments)
    except TryAgain as error:
        code = _said(f"{noun}: {error}", TEMPORARY_FAILURE)
    except UserError as error:
        code = _said(f"{noun}: {error}", 1)
    except KeyboardInterrupt:
        code = _said(f"{noun}: stopped; what is finished is kept and the next run goes on from there", STOPPED)
    sys.stdout.flush()
    sys.stderr.flush()
    if "torch" in sys.modules or "onnxruntime" in sys.modules:
        os._exit(code)  # their worker threads can hang at interpreter shutdown; everything is written by now
    sys.exit(code)


def _die_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends (Linux): a killed dvc must not leave a GPU busy."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    session = os.getsid(0)
    if session != os.getpid() and os.getppid() and os.getsid(os.getppid()) != session:
        sys.exit(1)  # it had ended before the kernel knew, and this process was handed to another


def _said(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
