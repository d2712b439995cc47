"""Targets from the top of the copies, controls that share nothing, each caption once."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from tasks import _library, _tables, duplicates, image_embeddings, images, inputs, prompts
from tasks._settings import UserError
from tests import tiny_audit

SETTINGS = {"n_duplicated": 3, "n_outlier": 1, "n_singleton": 2, "n_held_out": 2, "n_calibrating": 0, "n_paraphrased": 0, "seed": 0}


def row(image_id: int, caption: str | None, n_copies: int, *, split: str = "member", cluster_id: int | None = None,
        leaked: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    image = {"image_id": image_id, "caption": caption, "split": split, "is_degenerate": False, "status": "ok", "pixel_digest": str(image_id)}
    return image, {"image_id": image_id, "cluster_id": cluster_id or image_id, "n_copies": n_copies, "is_leaked": leaked}


def tables(rows: list[tuple[dict[str, Any], dict[str, Any]]]) -> tuple[pa.Table, pa.Table]:
    """Of `images` and `duplicates` the columns that prompts reads."""
    first, second = row(0, "", 0)
    found = []
    for given, like, stage in ((0, first, images), (1, second, duplicates)):
        found.append(pa.Table.from_pylist([r[given] for r in rows], pa.schema([stage.SCHEMA.field(name) for name in like])))
    return found[0], found[1]


def chosen(rows: list[tuple[dict[str, Any], dict[str, Any]]], custom: list[str] | None = None, vectors: np.ndarray | None = None,
           **settings: int) -> list[dict[str, Any]]:
    ids = np.array(sorted(image["image_id"] for image, _ in rows), np.int64)
    described = np.eye(len(ids) + 1, dtype=np.float32)[: len(ids)] if vectors is None else vectors
    shown, counted = tables(rows)
    found = prompts.candidates(shown, counted, _library.comparable(shown), settings.pop("n_captions", 1))
    return prompts.prompts(found, custom or [], ids, described, SETTINGS | settings).to_pylist()


def test_takes_whole_bins_from_the_top_and_samples_the_last() -> None:
    rows = [row(1, "a", 40), row(2, "b", 12), *[row(10 + i, f"c{i}", 2) for i in range(4)]]
    made = {r["caption"]: r for r in chosen(rows, n_outlier=0, n_singleton=0)}
    assert made["a"]["inclusion_probability"] == made["b"]["inclusion_probability"] == 1
    last = [r for r in made.values() if r["copies_bin"] == "2-3"]
    assert len(last) == 1 and last[0]["inclusion_probability"] == pytest.approx(1 / 4)


def test_asks_once_per_cluster_with_its_most_frequent_caption() -> None:
    rows = [row(1, "rare", 3), row(2, "Often", 3, cluster_id=1), row(3, "often ", 3, cluster_id=1)]
    made = chosen(rows)
    assert [(r["caption"].strip().lower(), r["cluster_id"]) for r in made] == [("often", 1)]


def test_captions_equal_after_normalisation_are_one_prompt_of_the_first_arm() -> None:
    made = chosen([row(1, "A  cat", 5), row(2, "ａ cat", 0, split="held_out")])
    assert [(r["arm"], r["image_id"]) for r in made] == [("duplicated", 1)]


def test_leaked_blank_and_uncaptioned_images_are_not_asked_for() -> None:
    blank = row(4, "blank", 9)
    blank[0]["is_degenerate"] = True
    rows = [row(1, "seen", 2), row(2, "leaked", 0, split="held_out", leaked=True), row(3, None, 7), blank]
    assert [r["caption"] for r in chosen(rows)] == ["seen"]


def test_a_larger_sample_keeps_the_smaller_one() -> None:
    rows = [row(i, f"caption {i}", 0, split="held_out") for i in range(1, 30)] + [row(99, "member", 2)]
    small, large = ({r["image_id"] for r in chosen(rows, n_held_out=n) if r["arm"] == "held_out"} for n in (5, 12))
    assert small < large


def test_the_outlier_is_the_image_farthest_from_all_others() -> None:
    rows = [row(i, f"c{i}", 1) for i in range(1, 5)]
    vectors = np.array([[1, 0, 0], [0.9, 0.4359, 0], [0.8, 0.6, 0], [0, 0, 1]], np.float32)
    made = chosen(rows, vectors=vectors)
    assert [r["image_id"] for r in made if r["arm"] == "outlier"] == [4]


def test_of_many_images_a_random_sample_is_asked_for_its_outliers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "OUTLIER_POOL", 3)
    rows, vectors = [row(i, f"c{i}", 1) for i in range(1, 9)], np.eye(8, dtype=np.float32)
    made = [r["image_id"] for r in chosen(rows, vectors=vectors, n_outlier=8, n_singleton=0) if r["arm"] == "outlier"]
    assert len(made) == 3 and made == [r["image_id"] for r in chosen(rows, vectors=vectors, n_outlier=8, n_singleton=0) if r["arm"] == "outlier"]


def test_a_custom_list_stands_alone() -> None:
    made = chosen([], ["a prompt", "A prompt"])
    assert [(r["arm"], r["image_id"], r["n_copies"]) for r in made] == [("custom", None, None)]


def test_nothing_to_ask_is_an_error_with_the_way_out() -> None:
    with pytest.raises(UserError, match="prompts.custom"):
        chosen([])


@pytest.mark.parametrize(("n", "name"), [(1, "1"), (2, "2-3"), (3, "2-3"), (4, "4-9"), (10, "10-29"), (99, "30-99"), (100, "100+"), (5000, "100+")])
def test_bins_of_copies(n: int, name: str) -> None:
    assert prompts.copies_bin(n) == name


def test_the_last_controls_drawn_calibrate_and_are_at_most_a_third() -> None:
    rows = [row(1, "seen", 2), *[row(10 + i, f"control {i}", 0, split="held_out") for i in range(12)]]
    few = {r["caption"]: r["is_calibrating"] for r in chosen(rows, n_held_out=6, n_calibrating=2)}
    more = {r["caption"]: r["is_calibrating"] for r in chosen(rows, n_held_out=12, n_calibrating=8)}
    assert (sum(few.values()), sum(more.values())) == (2, 4)
    assert not few["seen"] and not more["seen"]
    assert few.keys() < more.keys(), "a larger number of controls replaces none"


def test_a_paraphrase_keeps_the_common_words_and_the_seeds_of_its_caption() -> None:
    common = [row(100 + i, f"Flag of country{i}", 1) for i in range(20)]
    made = chosen([row(1, "Flag of Palau", 5), row(2, "zebra", 6), *common], n_duplicated=2, n_paraphrased=2, n_singleton=0, n_outlier=0)
    reworded = [r for r in made if r["arm"] == "paraphrased"]
    assert [(r["caption"], r["image_id"], r["n_copies"], r["inclusion_probability"]) for r in reworded] == [("Flag of", 1, 5, None)]
    original = next(r for r in made if r["caption"] == "Flag of Palau")
    assert reworded[0]["seed_id"] == original["prompt_id"] == original["seed_id"] != reworded[0]["prompt_id"]


def with_captions(first_id: int, captions: list[str], n_copies: int, split: str = "member") -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """One cluster of images with these captions, the most frequent one first."""
    said = [caption for i, caption in enumerate(captions) for _ in range(len(captions) - i)]
    return [row(first_id + i, caption, n_copies, split=split, cluster_id=first_id) for i, caption in enumerate(said)]


def test_further_captions_of_the_chosen_clusters_are_asked_in_the_same_arm_targets_and_controls_alike() -> None:
    rows = [*with_captions(10, ["often", "seldom", "once", "never asked"], 9), *with_captions(50, ["control", "again"], 0, "held_out"), row(90, "single", 1)]
    made = {r["caption"]: r for r in chosen(rows, n_captions=3)}
    assert {c: (r["arm"], r["cluster_id"], r["caption_rank"]) for c, r in made.items()} == {
        "often": ("duplicated", 10, 0), "seldom": ("duplicated", 10, 1), "once": ("duplicated", 10, 2),
        "control": ("held_out", 50, 0), "again": ("held_out", 50, 1), "single": ("outlier", 90, 0)}
    assert made["once"]["inclusion_probability"] == 1 and made["once"]["copies_bin"] == "4-9" and made["once"]["seed_id"] == made["once"]["prompt_id"]


def test_more_captions_change_nothing_of_the_most_frequent_ones() -> None:
    rows = [r for i in range(1, 9) for r in with_captions(100 * i, [f"a {i}", f"b {i % 3}", f"a {(i + 1) % 9}"], i)]
    rows += [r for i in range(9, 20) for r in with_captions(100 * i, [f"a {i}", "b 1"], 0, "held_out")]
    one, three = (chosen(rows, n_captions=n, n_held_out=9, n_calibrating=3) for n in (1, 3))
    assert [r for r in three if r["caption_rank"] == 0] == one and len(three) > len(one)
    calibrating = {r["cluster_id"] for r in three if r["is_calibrating"]}
    assert len(calibrating) == 3 and all(r["is_calibrating"] == (r["cluster_id"] in calibrating) for r in three)


def test_where_no_picture_can_be_compared_members_are_asked_for_and_no_control() -> None:
    rows = [row(1, "seen often", 4), row(2, "seen once", 1), row(3, "unseen", 0, split="held_out")]
    for image, _ in rows:
        image |= {"pixel_digest": None, "is_degenerate": None}
    assert [(r["arm"], r["n_copies"]) for r in sorted(chosen(rows, n_outlier=0), key=lambda r: -r["n_copies"])] == [("duplicated", 4), ("singleton", 1)]


def put_empty(custom: bytes, **settings: Any) -> None:
    """A project without a training set and with this custom list."""
    Path("mine.txt").write_bytes(custom)
    Path("params.yaml").write_text(yaml.safe_dump({"prompts": SETTINGS | {"n_captions": 1, "custom": "mine.txt"} | settings}))
    for module, noun in ((images, "images"), (duplicates, "duplicates")):
        tiny_audit.put([], module.SCHEMA, noun)
    tiny_audit.put([], image_embeddings.SCHEMA, "image_embeddings", side="metadata/metadata_0")
    _tables.put_array(np.zeros((0, 4), np.float16), Path("data/image_embeddings/img_emb/img_emb_0.npy"))
    tiny_audit.put([tiny_audit.row(inputs.SCHEMA, source="prompts", root=".", path="mine.txt", status="ok")], inputs.SCHEMA, "inputs", side="prompts")


def test_without_a_training_set_the_custom_list_is_asked(in_folder: Path) -> None:
    put_empty("\ufeffa red kettle\r\n\n  zwei Hunde \n".encode())
    prompts.main()
    made = _tables.read("prompts").to_pylist()
    assert {r["caption"] for r in made} == {"a red kettle", "zwei Hunde"} and {r["arm"] for r in made} == {"custom"}


@pytest.mark.parametrize(("custom", "said"), [
    ("Käse".encode("latin-1"), "prompts.custom: mine.txt is not UTF-8; save it as UTF-8 text, one prompt a line"),
    (b"a prompt\n" + b"x" * 10_000_000, "prompts.custom: line 2 of mine.txt has over 10,000 characters; give one prompt a line"),
], ids=["latin_1", "one_line_of_10_MB"])
def test_a_custom_list_that_is_none_is_refused_in_one_line(in_folder: Path, custom: bytes, said: str) -> None:
    put_empty(custom)
    with pytest.raises(UserError) as refused:
        prompts.main()
    assert str(refused.value) == said


def test_more_captions_than_three_are_refused(in_folder: Path) -> None:
    put_empty(b"a prompt", n_captions=4)
    with pytest.raises(UserError, match="prompts.n_captions is 4; ask for 1 to 3"):
        prompts.main()
