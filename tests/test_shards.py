"""Long work in pieces: a finished one is not made again, a second writer is told who the first is, progress is said."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from tasks import _shards
from tasks._settings import TryAgain


def test_a_finished_shard_is_read_and_not_made_again(in_folder: Path) -> None:
    made = []

    def make() -> pa.Table:
        made.append(1)
        return pa.table({"x": [1, 2]})

    for _ in range(2):
        assert _shards.shard("generations", "key", make).column("x").to_pylist() == [1, 2]
    assert len(made) == 1
    assert [p.name for p in (in_folder / "work" / "generations").iterdir()] == ["key.parquet"]


def test_a_fingerprint_depends_on_every_part_and_on_no_order_of_keys() -> None:
    assert _shards.fingerprint({"a": 1, "b": [2]}) == _shards.fingerprint({"b": [2], "a": 1})
    assert len({_shards.fingerprint(*parts) for parts in ((1,), (2,), (1, 2), ("1",), ({"a": 1},))}) == 5


def test_a_second_writer_is_told_who_holds_the_lock(in_folder: Path) -> None:
    with _shards.lock("generations-v1"):
        with pytest.raises(TryAgain, match=f"process {os.getpid()} is at work on generations-v1"), _shards.lock("generations-v1"):
            pass
        with _shards.lock("generations-v2"):
            pass
    with _shards.lock("generations-v1"):
        pass


def test_work_is_cleaned_unless_someone_is_at_it(in_folder: Path) -> None:
    _shards.shard("generations", "key", lambda: pa.table({"x": [1]}))
    with _shards.lock("generations-v1"), pytest.raises(TryAgain, match="is at work on generations-v1"):
        _shards.cleaned()
    assert Path("work/generations/key.parquet").is_file()
    assert _shards.cleaned() > 0 and not Path("work").exists()


def test_progress_hands_on_every_item_and_says_so_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shards, "SECONDS_BETWEEN_LINES", 0.0)
    assert list(_shards.progress(range(3), 3, "prompts")) == [0, 1, 2]
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("prompts: 1 of 3") and said[-1].startswith("prompts: 3 in")
