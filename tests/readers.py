"""A reader of findings.duckdb that opens it anew again and again; in a file of its own, so that fifty of them start at once."""

import os
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from tasks import _database

QUERY = """
select
    (select audit_id from releases where release = 'v1') as audit_id,
    (select count(*) from findings where release = 'v1' and is_extracted) as n_extracted,
    (select sum(n_findings) from summary where release = 'v1' and copies_bin = 'all') as n_summarised,
    (select count(*) from all_findings inner join releases using (audit_id) where releases.release = 'v1') as n_in_history,
    (select count(*) from gate) as n_releases
"""


def read(database: Path, is_over: Event, said: "Queue[dict[str, Any]]") -> None:
    """Read until it is over; say how often, which answers were seen, and what failed, in one message."""
    os.nice(19)  # the publisher is one, the readers are many
    seen: set[tuple[Any, ...]] = set()
    n, failure, last = 0, None, None
    while failure is None:
        ends = is_over.is_set()  # asked before the last read, which then sees what was published last
        try:
            with _database.connect(database) as connection:
                last = connection.execute(QUERY).fetchone()
            seen.add(last)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        n += 1
        if ends:
            break
    said.put({"n": n, "seen": seen, "last": last, "failure": failure})
