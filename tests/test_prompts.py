"""Targets from the top of the copies, controls that share nothing, each caption once."""

from typing import Any

import numpy as np
import pytest

from tasks import prompts
from tasks._settings import UserError

SETTINGS = {"n_duplicated": 3, "n_outlier": 1, "n_singleton": 2, "n_held_out": 2, "n_calibrating": 0, "n_paraphrased": 0, "seed": 0}


def row(image_id: int, caption: str | None, n_copies: int, *, split: str = "member", cluster_id: int | None = None,
        leaked: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    image = {"image_id": image_id, "caption": caption, "split": split, "is_degenerate": False}
    return image, {"cluster_id": cluster_id or image_id, "n_copies": n_copies, "is_leaked": leaked}


def chosen(rows: list[tuple[dict[str, Any], dict[str, Any]]], custom: list[str] | None = None, **settings: int) -> list[dict[str, Any]]:
    images = [image for image, _ in rows]
    counted = {image["image_id"]: count for image, count in rows}
    vectors = np.eye(len(images) + 1, dtype=np.float32)[: len(images)]
    ids = np.array([i["image_id"] for i in images])
    return prompts.prompts(prompts.candidates(images, counted), custom or [], ids, vectors, SETTINGS | settings).to_pylist()


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
    images, counted = [r[0] for r in rows], {r[0]["image_id"]: r[1] for r in rows}
    made = prompts.prompts(prompts.candidates(images, counted), [], np.arange(1, 5), vectors, SETTINGS).to_pylist()
    assert [r["image_id"] for r in made if r["arm"] == "outlier"] == [4]


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
