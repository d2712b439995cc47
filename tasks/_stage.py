"""The edge of every stage: one at a time, dead with the process that started it, a person's mistake in one line."""

import ctypes
import os
import select
import signal
import sys
import threading
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
    _die_with_the_caller_of(os.getppid())


def _die_with_the_caller_of(parent: int) -> None:
    """The same where the parent is a shell that only waits (`sh -c`): bash becomes the stage, an older dash outlives a killed dvc."""
    try:
        if b"-c" not in Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0"):
            return
        caller = int(Path(f"/proc/{parent}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
        if os.getsid(caller) != os.getsid(0):
            sys.exit(1)  # it has ended already, and its shell was handed to another
        ended = os.pidfd_open(caller)
    except OSError:
        return  # another user's, or a kernel before 5.3

    def end_when_it_ends() -> None:
        select.select([ended], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_when_it_ends, name="end-with-dvc", daemon=True).start()


def _said(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
