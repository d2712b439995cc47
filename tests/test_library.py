"""What can be compared is compared in 8 bits as it would be in 32, and there may be nothing."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from tasks import _library
from tasks.measures import clusters, distances, templates

Maker = Callable[..., np.ndarray]


def images(*rows: tuple[str, str, str | None]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(("split", "status", "pixel_digest"), row, strict=True)) for row in rows],
                                pa.schema([("split", pa.string()), ("status", pa.string()), ("pixel_digest", pa.string())]))


def test_good_pictures_are_compared_and_descriptors_without_pictures_are_not() -> None:
    assert _library.comparable(images(("member", "ok", "a"), ("member", "error", None), ("held_out", "ok", "b"))).tolist() == [True, False, True]
    assert _library.comparable(images(("member", "ok", None), ("held_out", "ok", None))).tolist() == [False, False]
    assert _library.comparable(images(("member", "ok", None), ("held_out", "ok", "b"))).tolist() == [False, False], "a control of nothing"
    assert _library.comparable(images()).tolist() == []


@pytest.mark.parametrize("side", [32, 64])
def test_distances_from_8_bits_are_the_same_to_the_bit(picture: Maker, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    held = np.stack([picture(i, side) for i in range(60)])
    shown = np.clip(held[:7] + np.random.default_rng(0).normal(0, 9, held[:7].shape), 0, 255).astype(np.uint8) / np.float32(255)
    shown[0] = held[0] / np.float32(255)
    whole = (held / np.float32(255)).reshape(60, -1)
    monkeypatch.setattr(_library, "BLOCK_BYTES", 7 * held[0].size)
    found = _library.Pictures(held).l2(shown)
    assert np.array_equal(found, distances.pairwise_l2(shown.reshape(7, -1), whole)) and found[0, 0] == 0
    assert np.array_equal(_library.Pictures(held)[3], held[3] / np.float32(255)) and _library.Pictures(held)[3].dtype == np.float32


def test_templates_are_found_in_8_bits_as_in_32(picture: Maker) -> None:
    rng = np.random.default_rng(0)
    held = np.stack([picture(i) for i in range(12)])
    generated = np.stack([held[3]] * 12) / np.float32(255)
    generated[:, 20:, 20:] = rng.random((12, 12, 12, 3))
    settings = {"edge_l2": 0.1, "clique_size": 10, "template_share": 0.25, "max_l2": 0.15, "max_margin": 0.7}
    whole, small = (templates.shared_template(generated, library, np.ones(12, bool), settings) for library in (held / np.float32(255), _library.Pictures(held)))
    assert whole is not None and small is not None and whole["row"] == 3
    assert all(np.array_equal(whole[name], small[name]) for name in whole)


def library(picture: Maker, monkeypatch: pytest.MonkeyPatch, *, n: int = 5, trained_on: tuple[int, ...] = (0, 1, 2)) -> _library.Library:
    """n images with ids 10, 20, ..., of which the last is held out and the first two are one picture."""
    held = np.stack([picture(max(i, 1)) for i in range(n)]) if n else np.zeros((0, 32, 32, 3), np.uint8)
    monkeypatch.setattr(_library, "pictures", lambda rows, side: _library.Pictures(held))
    rows = [{"image_id": 10 * (i + 1), "key": str(i), "split": "held_out" if i == n - 1 else "member", "cluster_id": 10 * max(i + 1, 2), "is_leaked": False,
             "representative_id": 10 * max(i + 1, 2)} for i in range(n)]
    return _library.Library(rows, {str(i) for i in trained_on}, 32)


def pairs(*ends: tuple[int, int]) -> pa.Table:
    return pa.table({"image_id_a": pa.array([a for a, _ in ends], pa.int64()), "image_id_b": pa.array([b for _, b in ends], pa.int64())})


def test_copies_are_counted_among_those_the_release_was_trained_on(picture: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    lib = library(picture, monkeypatch)
    counted = lib.n_copies(pairs((20, 30), (30, 40), (10, 77)))  # 77 cannot be compared
    assert counted == {10: 3, 20: 3, 30: 3, 40: 1, 50: 0}
    rows = np.array([[1, 2], [2, 3]])
    assert list(counted.values()) == clusters.copies_among([r["representative_id"] for r in lib.rows], rows, lib.is_member).tolist()


def test_an_image_is_as_far_from_the_members_as_pixels_say(picture: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    lib = library(picture, monkeypatch)
    assert lib.l2_to_members(20)[:2].tolist() == [0, 0] and len(lib.l2_to_members(20)) == 3
    assert lib.l2_to_members(20)[2] == pytest.approx(distances.l2(lib.picture(20), lib.picture(30)), rel=1e-6)


def test_a_library_may_be_empty(picture: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    lib = library(picture, monkeypatch, n=0)
    assert len(lib) == 0 and lib.n_copies(pairs((10, 20))) == {} and lib.pictures.l2(picture(1)[None] / np.float32(255)).shape == (1, 0)
