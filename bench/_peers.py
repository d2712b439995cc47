"""What a user would pick instead, run by an interpreter that has it: python bench/_peers.py TOOL FOLDER prints groups or pairs as JSON.

imagededup (PHash within 10 bits), pdq (pdqhash within 31 bits, faiss), cleanvision (near and exact duplicates), immaculate (pdq) and
immaculate_sscd (sscd_distilled). Imports nothing of Eidetic.
"""

import json
import sys
import time
from pathlib import Path
from unittest.mock import MagicMock


def imagededup(folder: Path) -> list[list[str]]:
    """Each image with those within 10 bits of its PHash."""
    for name in ("torch", "torch.nn", "torch.utils", "torch.utils.data", "torchvision", "torchvision.transforms", "torchvision.models",
                 "torchvision.models.vision_transformer", "torchvision.models.mobilenetv3", "torchvision.models.efficientnet"):
        sys.modules.setdefault(name, MagicMock(Tensor=MagicMock))  # its network needs them, its hashes do not
    from imagededup.methods import PHash

    found = PHash(verbose=False).find_duplicates(image_dir=str(folder), max_distance_threshold=10)
    return [[name, other] for name, others in found.items() for other in others]


def pdq(folder: Path) -> list[list[str]]:
    """Pairs of a PDQ quality of 50 within 31 bits."""
    import faiss
    import numpy as np
    import pdqhash
    from PIL import Image

    names, bits = [], []
    for path in sorted(folder.iterdir()):
        found, quality = pdqhash.compute(np.asarray(Image.open(path).convert("RGB")))
        if quality >= 50:
            names.append(path.name)
            bits.append(np.packbits(found))
    index = faiss.IndexBinaryFlat(256)
    index.add(np.stack(bits))
    starts, _, rows = index.range_search(np.stack(bits), 32)
    return [[names[i], names[j]] for i in range(len(names)) for j in rows[starts[i]:starts[i + 1]] if i < j]


def cleanvision(folder: Path) -> list[list[str]]:
    """Sets of equal pictures and of equal perceptual hashes."""
    from cleanvision import Imagelab

    lab = Imagelab(data_path=str(folder))
    lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, verbose=False)
    return [[Path(p).name for p in group] for kind in ("exact_duplicates", "near_duplicates") for group in lab.info[kind]["sets"]]


def immaculate(folder: Path, method: str = "pdq") -> list[list[str]]:
    """Sets that its search finds; they chain."""
    from immaculate import find_duplicates

    found = find_duplicates(folder, method)
    return [[p.name for p in group] for group in [*found.exact, *found.near]]


def immaculate_sscd(folder: Path) -> list[list[str]]:
    """Sets at a similarity of 0.75 of the descriptor that Eidetic takes by default."""
    return immaculate(folder, "sscd_distilled")


def _peak_gb() -> float:
    """Of this process alone: what getrusage says is inherited from the one that started it (Linux)."""
    said = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()
    return int(said[0]) / 2**20


if __name__ == "__main__":
    tool, at = sys.argv[1], Path(sys.argv[2])
    began = time.perf_counter()
    groups = globals()[tool](at)
    said = {"groups": groups, "seconds": time.perf_counter() - began, "peak_gb": _peak_gb()}
    sys.__stdout__.write("\n" + json.dumps(said) + "\n")
