"""Descriptors: the same preprocessing for both sides, real models that tell a copy from another picture."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import _embedders, _pictures
from tasks._settings import UserError
from tests.conftest import ROOT
from tests.tiny_sets import shown

Maker = Callable[..., np.ndarray]


def model(digest: str = "d" * 64) -> _embedders.Embedder:
    return _embedders.Embedder("mean_colour", digest, 8, lambda batch: batch.reshape(len(batch), -1)[:, :16].astype(np.float32) + 1)


def test_both_sides_are_brought_to_one_size_before_the_model_sees_them(picture: Maker) -> None:
    large = picture(1, 64)
    from tasks import _pictures

    small = _pictures.resized(large, 16)
    one, two = (model().descriptors([p], 16) for p in (large, small))
    assert np.allclose(one, two) and np.linalg.norm(one) == pytest.approx(1)


def test_the_provenance_names_weights_and_preprocessing() -> None:
    assert model().provenance(32) != model("e" * 64).provenance(32) != model().provenance(64)


@pytest.mark.parametrize("name", ["sscd_distilled", "sscd", "efficientnet_lite0"])
def test_real_descriptors_tell_a_reencoded_copy_from_another_picture(name: str, picture: Maker) -> None:
    pictures = [picture(1, 64), _pictures.canonical(_pictures.jpeg(picture(1, 64), 75)), picture(2, 64)]
    vectors = _embedders.embedder(name).descriptors(pictures, 64)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


@pytest.mark.parametrize("name", ["sscd_distilled", "efficientnet_lite0"])
def test_descriptors_are_the_same_bytes_whatever_the_threads_the_batch_and_the_companions(name: str, picture: Maker) -> None:
    code = ("import sys, numpy as np\nfrom tasks import _embedders\nfrom tests.tiny_sets import shown\n"
            f"made = _embedders.embedder('{name}').descriptors([shown(i, 64) for i in range(20)], 64).astype(np.float16)\n"
            "sys.stdout.buffer.write(made.tobytes())")
    one, two = (subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": n}, capture_output=True, check=True).stdout
                for n in "12")
    assert len(one) > 1000 and one == two
    alone = _embedders.embedder(name).descriptors([shown(17, 64)], 64).astype(np.float16)
    assert alone.tobytes() == np.frombuffer(one, np.float16).reshape(20, -1)[17].tobytes()


def test_a_torchscript_file_is_taken_by_path(tmp_path: Path, picture: Maker) -> None:
    import torch

    path = tmp_path / "sscd.torchscript.pt"
    torch.jit.script(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())).save(str(path))
    vectors = _embedders.embedder("sscd", str(path)).descriptors([picture(1), picture(1), picture(2)], 32)
    assert vectors.shape == (3, 48) and vectors[0] @ vectors[1] == pytest.approx(1, abs=1e-5) and vectors[0] @ vectors[2] < 0.999


def test_an_unknown_descriptor_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="'clip' is not known; use sscd"):
        _embedders.embedder("clip")


def test_a_piece_is_made_once(in_folder: Any) -> None:
    made = []

    def make() -> np.ndarray:
        made.append(1)
        return np.eye(3, dtype=np.float32)

    for _ in range(2):
        assert _embedders.piece("image_embeddings", "key", make).tolist() == np.eye(3).tolist()
    assert len(made) == 1
