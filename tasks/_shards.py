"""Long work in pieces that survive a kill: one file per piece under work/, named by what it depends on."""

import fcntl
import hashlib
import json
import os
import pkgutil
import shutil
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from tasks import _tables
from tasks._settings import TryAgain, UserError

WORK = Path(os.environ.get("EIDETIC_WORK", "work"))
SECONDS_BETWEEN_LINES = 10.0
T = TypeVar("T")
R = TypeVar("R")


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits of the parts' canonical JSON: settings, version and inputs of a shard."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def shard(stage: str, key: str, make: Callable[[], pa.Table]) -> pa.Table:
    """The finished shard of this key, made now if it is not there; visible only when complete."""
    path = WORK / stage / f"{key}.parquet"
    if not path.is_file():
        _tables.put(make(), path)
    return pq.read_table(path)


def pieces(stage: str, job: str, items: list[tuple[str, tuple[Any, ...]]], scheduler: str | None, what: str = "pieces") -> Iterator[pa.Table]:
    """The finished shard of each (key, arguments), in their order; says how many are kept from before and makes the others now.

    job is a function's name, "tasks.noun:function"; it returns the shard's table, in this process or, where a scheduler is named, on
    the workers of a Dask cluster.
    """
    missing = {key: arguments for key, arguments in items if not (WORK / stage / f"{key}.parquet").is_file()}
    print(f"{stage}: {len(items)} {what}, {len(items) - len(missing)} kept from before, {len(missing)} to make", flush=True)
    work = [(stage, key, job, arguments) for key, arguments in missing.items()]
    done = spread(f"{__name__}:_made", work, scheduler) if scheduler and work else (_made(*item) for item in work)
    for _ in progress(done, len(work), f"{stage}: {what}") if work else ():
        pass
    for key, _ in items:
        yield pq.read_table(WORK / stage / f"{key}.parquet")


def _made(stage: str, key: str, job: str, arguments: tuple[Any, ...]) -> str:
    shard(stage, key, lambda: pkgutil.resolve_name(job)(*arguments))
    return key


def runs(names: list[str], mean: int, files: list[tuple[str, str]] | None = None) -> list[range]:
    """Consecutive runs of about `mean` names, at most four times as many. A run ends after a name by that name's own hash.

    A name that comes or goes changes the run that it is in and no other: the pieces of the others are found again. With the split and file of
    each, a run ends with its file, too: another file changes no run of the others. Files of one name each, as in a folder, share runs.
    """
    made, start, rows = [], 0, Counter(files)
    for i, name in enumerate(names):
        is_last = files is not None and i + 1 < len(names) and files[i] != files[i + 1] and max(rows[files[i]], rows[files[i + 1]]) > 1
        if is_last or int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8], "big") % mean == 0 or i + 1 - start == 4 * mean:
            made.append(range(start, i + 1))
            start = i + 1
    return made + ([range(start, len(names))] if start < len(names) else [])


def in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """function of each item, made by as many threads as there are cores, in the items' order; few of them are held at a time."""
    n_threads = os.cpu_count() or 1
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def remove(stage: str, key: str) -> None:
    """Remove the finished shard of this key, if it is there."""
    (WORK / stage / f"{key}.parquet").unlink(missing_ok=True)


def spread(job: str, items: list[tuple[Any, ...]], scheduler: str) -> Iterator[Any]:
    """What job returns for each item, as each is done, on the workers of a Dask cluster: "local", "local:2", or a scheduler's address.

    job is a function's name, "tasks.noun:function": it makes shards, which workers and this process share on one file system. The
    item of a worker that is lost runs again on another. Raises UserError where Dask is not installed or there is no such cluster.
    """
    try:
        from distributed import Client, LocalCluster, as_completed
    except ImportError:
        raise UserError("compute.dask is set, and Dask is not installed; install it with `pip install 'eidetic[dask]'`, or set it to null") from None
    kind, _, number = str(scheduler).partition(":")
    with ExitStack() as held:
        if kind == "local":
            n_workers = int(number) if number.isdigit() else os.cpu_count()
            address = held.enter_context(LocalCluster(n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=None))
        else:
            address = str(scheduler)
        try:
            client = held.enter_context(Client(address, timeout="30s", set_as_default=False))
        except (OSError, TimeoutError, ValueError):
            raise UserError(f"compute.dask: no scheduler answers at '{scheduler}'; give local, local:N or an address such as tcp://10.0.0.1:8786") from None
        futures = client.map(_on_worker, [job] * len(items), [str(Path.cwd())] * len(items), items, pure=False)
        for future in as_completed(futures, loop=client.loop):
            yield future.result()


def _on_worker(job: str, folder: str, item: tuple[Any, ...]) -> Any:
    os.chdir(folder)
    return pkgutil.resolve_name(job)(*item)


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold work/<name>.lock. Raises TryAgain with the holder's process id where another process has it."""
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / f"{name}.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise TryAgain(f"process {holder} is at work on {name}; wait for it, or stop it with `kill {holder}`") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def cleaned() -> int:
    """Remove all of work/; the bytes that it held. Raises TryAgain while a stage or an audit is at work."""
    with ExitStack() as held:
        for file in WORK.glob("*.lock"):
            held.enter_context(lock(file.stem))
        freed = sum(file.stat().st_size for file in WORK.rglob("*") if file.is_file())
        shutil.rmtree(WORK, ignore_errors=True)
    return freed


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder: files <name>.<process id>.tmp of processes that are no more."""
    for file in folder.glob("*.tmp"):
        writer = file.suffixes[-2].removeprefix(".") if len(file.suffixes) > 1 else ""
        if writer.isdigit() and not _is_alive(int(writer)):
            file.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def progress(items: Iterable[T], total: int | None, what: str) -> Iterator[T]:
    """The items, with a bar on a terminal and a line now and then in a log; total is None where it is not known."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=what, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{what}: {done}{f' of {total}' if total else ''} in {last - start:.0f} s", flush=True)
    print(f"{what}: {done} in {time.monotonic() - start:.0f} s", flush=True)
