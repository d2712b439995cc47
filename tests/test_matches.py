"""The nearest picture is found whatever the descriptors say; margins are those of brute force."""

from collections.abc import Callable

import numpy as np
import pytest

from tasks import _library, matches

Maker = Callable[..., np.ndarray]


def library(picture: Maker, *, n: int = 8, clusters: list[int] | None = None, vectors: np.ndarray | None = None, blank: tuple[int, ...] = (),
            ) -> matches.Library:
    pictures = np.stack([picture(i) for i in range(n)])
    pictures[list(blank)] = 250
    labels, cluster = np.unique(clusters or list(range(100, 100 + n)), return_inverse=True)
    given = np.random.default_rng(1).normal(size=(n, 16)).astype(np.float32) if vectors is None else vectors
    vectors = given / np.linalg.norm(given, axis=1, keepdims=True)
    return matches.Library(np.arange(1, n + 1), cluster, labels, np.arange(n) < n - 2, np.isin(np.arange(n), blank), vectors,
                           _library.Pictures(pictures))


def rows_of(lib: matches.Library, shown: np.ndarray, vector: np.ndarray, own: dict[int, int] | None = None, k: int = 2) -> list[dict]:
    generation = {"generation_id": 9, "release": "v1", "prompt_id": 3}
    similar = matches.similar_rows(lib, vector[None], k)
    return matches.matches([generation], vector[None], shown[None], similar, own or {}, lib)


def test_pixels_find_the_copy_that_the_descriptors_miss(picture: Maker) -> None:
    lib = library(picture)
    rows = rows_of(lib, lib.pictures[2], -lib.vectors[2])
    best = rows[0]
    assert (best["split"], best["rank"], best["image_id"], best["l2"], best["margin"]) == ("member", 0, 3, 0, 0)


def test_members_and_held_out_images_are_searched_alike(picture: Maker) -> None:
    lib = library(picture)
    rows = rows_of(lib, lib.pictures[7], lib.vectors[7])
    nearest = {r["split"]: r for r in rows if r["rank"] == 0}
    assert nearest["held_out"]["image_id"] == 8 and nearest["held_out"]["l2"] == 0
    assert nearest["member"]["margin"] == np.inf


def test_a_small_split_is_not_crowded_out_by_a_large_one(picture: Maker) -> None:
    vectors = np.eye(64, 16, dtype=np.float32) + 1
    vectors[-2:] = -1 - np.eye(2, 16)  # the held-out pictures are the least similar of all
    lib = library(picture, n=64, vectors=vectors)
    similar = matches.similar_rows(lib, lib.vectors[:1], 5)[0]
    assert len(similar) == 7 and set(similar[5:].tolist()) == {62, 63} and lib.is_member[similar[:5]].all()


def test_nothing_is_a_copy_of_a_blank_picture_which_is_another_picture_for_the_rest(picture: Maker) -> None:
    lib = library(picture, blank=(3,))
    nearly_blank = np.full_like(lib.pictures[3], 0.97)
    rows = rows_of(lib, nearly_blank, lib.vectors[3], own={3: 103}, k=8)
    assert 4 not in {r["image_id"] for r in rows} and len(rows) == 7
    assert min(r["margin"] for r in rows) > 10, "the blank picture is nearer"


def test_margins_equal_brute_force_over_clusters(picture: Maker, rng: np.random.Generator) -> None:
    lib = library(picture, clusters=[1, 1, 1, 2, 2, 3, 4, 5])
    shown = np.clip(lib.pictures[1] + rng.normal(0, 0.05, lib.pictures[1].shape), 0, 1).astype(np.float32)
    l2 = np.sqrt(((lib.pictures[:] - shown) ** 2).mean(axis=(1, 2, 3)))
    for row in rows_of(lib, shown, lib.vectors[0], k=8):
        same = lib.clusters[lib.cluster] == row["cluster_id"]
        assert row["margin"] == pytest.approx(l2[same].min() / l2[~same].min(), rel=1e-4)
        assert row["tiled_l2"] >= row["l2"]


def test_the_prompts_own_cluster_is_always_among_the_rows(picture: Maker) -> None:
    lib = library(picture)
    rows = rows_of(lib, lib.pictures[0], lib.vectors[0], own={3: 105}, k=1)
    assert [r["image_id"] for r in rows if r["is_own_cluster"]] == [6]


def test_ranks_are_in_order_of_pixels_within_each_split(picture: Maker) -> None:
    lib = library(picture)
    rows = rows_of(lib, lib.pictures[4], lib.vectors[4], k=3)
    for split in ("member", "held_out"):
        of_split = [r for r in rows if r["split"] == split]
        assert [r["rank"] for r in of_split] == list(range(len(of_split)))
        assert [r["l2"] for r in of_split] == sorted(r["l2"] for r in of_split)


def test_without_another_picture_there_is_no_margin(picture: Maker) -> None:
    assert np.isnan(matches.margins(np.array([[0.1]]))).all()


def test_two_equally_near_clusters_cannot_be_told_apart() -> None:
    assert matches.margins(np.array([[0.1, 0.1, 0.5]], np.float32)).tolist()[0] == pytest.approx([1, 1, 5])


def test_of_rows_with_one_descriptor_the_first_is_proposed_whichever_a_search_returns(picture: Maker) -> None:
    vectors = np.eye(40, dtype=np.float32)
    vectors[5:30] = vectors[5]
    similar = matches.similar_rows(library(picture, n=40, vectors=vectors), vectors[[5, 20]], 5)
    assert set(similar[:, :5].ravel().tolist()) == {5}


def test_of_a_library_searched_in_pieces_the_same_rows_are_proposed(picture: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    lib = library(picture, n=64)
    whole = matches.similar_rows(lib, lib.vectors[:9], 5)
    monkeypatch.setattr(matches, "ROWS", 7)
    assert np.array_equal(matches.similar_rows(lib, lib.vectors[:9], 5), whole)


def test_without_a_picture_to_compare_with_there_is_no_match(picture: Maker) -> None:
    nothing = np.zeros(0, np.int64)
    lib = matches.Library(nothing, nothing, nothing, nothing.astype(bool), nothing.astype(bool), np.zeros((0, 0), np.float32),
                          _library.Pictures(np.zeros((0, 32, 32, 3), np.uint8)))
    assert rows_of(lib, picture(1) / np.float32(255), np.ones(16, np.float32) / 4, own={3: 100}) == []
