"""Fifty readers, each a process, while the database is published twenty times and one build fails: nobody fails or sees half."""

import multiprocessing
import shutil
from pathlib import Path

import pytest

from tasks import findings, warehouse
from tasks._settings import UserError
from tests import readers
from tests.conftest import ROOT
from tests.tiny_audit import PROMPTS, V1, finding_row, put, put_project, put_release

N_READERS, N_PUBLISHED, FAILS_AT = 50, 20, 10
SECONDS = 600


def test_fifty_readers_see_a_whole_database_through_twenty_publishes_and_a_build_that_fails(in_folder: Path) -> None:
    shutil.copytree(ROOT / "sql", "sql")
    put_project()
    warehouse.main()
    context = multiprocessing.get_context("forkserver")  # one process has duckdb, the readers are forked from it
    context.set_forkserver_preload(["tests.readers"])
    is_over, said = context.Event(), context.Queue()
    processes = [context.Process(target=readers.read, args=(warehouse.DATABASE.resolve(), is_over, said), daemon=True) for _ in range(N_READERS)]
    try:
        for process in processes:
            process.start()
        for number in range(N_PUBLISHED):
            put_release(V1, {11, 14} if number % 2 else {11})
            warehouse.main()
            if number == FAILS_AT:
                fail_to_publish()
        is_over.set()
        told = [said.get(timeout=SECONDS) for _ in processes]
    finally:
        for process in processes:
            process.join(10) if is_over.is_set() else process.kill()
    assert [t["failure"] for t in told if t["failure"]] == []
    for t in told:
        assert t["n"] >= 1 and t["last"][1] == 2, "the last read sees what was published last"
        assert all((extracted, in_history, n) == (summarised, len(PROMPTS), 2) and extracted in (1, 2) for _, extracted, summarised, in_history, n in t["seen"])
    assert len({audit_id for t in told for audit_id, *_ in t["seen"]}) == 2, "both audits were seen while they were current"
    assert sum(t["n"] for t in told) > N_PUBLISHED


def fail_to_publish() -> None:
    """A build that a check stops; the database is the one that was there."""
    before = warehouse.DATABASE.stat()
    put([finding_row(V1, p, p == 11) | ({"margin": 0.8} if p == 11 else {}) for p in PROMPTS], findings.SCHEMA, "findings", V1)
    with pytest.raises(UserError, match="extractions_keep_their_bounds"):
        warehouse.main()
    after = warehouse.DATABASE.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns) and not list(Path().glob("findings.duckdb?*"))
