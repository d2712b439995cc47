"""Long work in pieces: a finished one is not made again, a second writer is told who the first is, progress is said."""

import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def numbers(first: int, n: int) -> pa.Table:
    return pa.table({"x": list(range(first, first + n))})


@pytest.mark.parametrize("scheduler", [None, "local:2"])
def test_pieces_come_in_order_and_only_what_is_missing_is_made(in_folder: Path, capsys: pytest.CaptureFixture[str], scheduler: str | None,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    items = [(f"key{i}", (10 * i, 2)) for i in range(4)]
    assert len(list(_shards.pieces("images", "tests.test_shards:numbers", items[1:3], scheduler))) == 2
    made = list(_shards.pieces("images", "tests.test_shards:numbers", items, scheduler))
    assert [t.column("x").to_pylist() for t in made] == [[0, 1], [10, 11], [20, 21], [30, 31]]
    assert "images: 4 pieces, 2 kept from before, 2 to make" in capsys.readouterr().out


@given(st.lists(st.text(max_size=3), max_size=60), st.integers(1, 8), st.integers(0, 60), st.text(max_size=3))
def test_a_name_that_comes_touches_the_runs_at_its_place_and_no_other(names: list[str], mean: int, place: int, new: str) -> None:
    place = min(place, len(names))
    before = [tuple(names[i] for i in run) for run in _shards.runs(names, mean)]
    assert [name for run in before for name in run] == names and all(0 < len(run) <= 4 * mean for run in before)
    more = [*names[:place], new, *names[place:]]
    after = [tuple(more[i] for i in run) for run in _shards.runs(more, mean)]
    start = 0
    for run in before:  # what ends before the new name is as it was
        start += len(run)
        if start < place:
            assert run in after


@given(st.lists(st.tuples(st.integers(0, 4), st.text(max_size=2)), max_size=40), st.integers(0, 4), st.integers(2, 6))
def test_another_file_of_several_rows_changes_no_run_of_the_others(rows: list[tuple[int, str]], new: int, n: int) -> None:
    def cut(listed: list[tuple[int, str]]) -> set[tuple[tuple[int, str], ...]]:
        every = sorted(listed, key=lambda row: row[0])
        return {tuple(every[i] for i in run) for run in _shards.runs([name for _, name in every], 4, [("member", str(file)) for file, _ in every])}

    others = [row for pair in zip(rows, rows, strict=True) for row in pair if row[0] != new]  # no file of one row alone
    grown = cut([*others, *((new, str(i)) for i in range(n))])
    assert cut(others) <= grown and all(len({file for file, _ in run}) == 1 for run in grown)


def test_files_of_one_picture_each_share_runs() -> None:
    names = [f"{i}.png" for i in range(100)]
    assert _shards.runs(names, 10, [("member", name) for name in names]) == _shards.runs(names, 10)
