"""Which captions are probed, by arm. One row per prompt.

Targets are the most duplicated images, outliers and singletons; controls are held-out images that share nothing with a member:
some of them set thresholds, the others judge. Paraphrases of the duplicated captions and a custom list may stand beside them.
Captions that are equal after Unicode and space normalisation count once.
"""

import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks import _settings, _stage, _tables
from tasks._schemas import column, schema
from tasks._settings import UserError
from tasks.measures import neighbours
from tasks.measures.identity import hash63, require_distinct

ARMS = ("duplicated", "outlier", "singleton", "held_out", "paraphrased", "custom")
BINS = ((1, "1"), (2, "2-3"), (4, "4-9"), (10, "10-29"), (30, "30-99"), (100, "100+"))
SCHEMA = schema(
    ["prompt_id"],
    [
        column("prompt_id", pa.int64(), "63-bit hash of the normalised caption"),
        column("caption", pa.string(), "Text given to the model"),
        column("image_id", pa.int64(), "Image whose caption it is; NULL for a custom prompt", nullable=True),
        column("cluster_id", pa.int64(), "Cluster of that image; NULL for a custom prompt", nullable=True),
        column("arm", pa.string(), "duplicated, outlier, singleton, held_out (control), paraphrased or custom"),
        column("copies_bin", pa.string(), "Bin of n_copies: 1, 2-3, 4-9, 10-29, 30-99, 100+; NULL for images never seen", nullable=True),
        column("inclusion_probability", pa.float64(), "Chance of its bin's clusters to be prompted; NULL where it was not drawn at random", nullable=True),
        column("n_copies", pa.int32(), "Copies of the image in the training set; 0 for a control, NULL for a custom prompt", nullable=True),
        column("seed_id", pa.int64(), "Prompt whose seeds it is given: its own prompt_id, or for a paraphrase that of the caption as it was"),
        column("is_calibrating", pa.bool_(), "A control that sets thresholds, and therefore judges nothing"),
    ],
)
CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "arm", "value_set": list(ARMS)}},
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "copies_bin", "value_set": [name for _, name in BINS]}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "inclusion_probability", "min_value": 0, "max_value": 1, "strict_min": True}},
    {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}},
]


RARE_SHARE = 0.005  # a word is rare when at most this share of the training set's captions has it


def normalized(caption: str) -> str:
    """The caption under which prompts are told apart: NFKC, single spaces, lower case."""
    return " ".join(unicodedata.normalize("NFKC", caption).split()).lower()


def copies_bin(n_copies: int) -> str:
    """The bin of a number of copies."""
    return [name for least, name in BINS if n_copies >= least][-1]


def candidates(images: list[dict[str, Any]], duplicates: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per cluster and split that can be prompted: its most frequent caption, on the first image that has it."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in images:
        counted = duplicates.get(row["image_id"])
        if counted and row["caption"] and normalized(row["caption"]) and not row["is_degenerate"] and not counted["is_leaked"]:
            groups.setdefault((row["split"], counted["cluster_id"]), []).append(row)
    rows = []
    for (split, cluster_id), members in sorted(groups.items()):
        frequency = Counter(normalized(m["caption"]) for m in members)
        chosen = min(members, key=lambda m: (-frequency[normalized(m["caption"])], m["image_id"] != cluster_id, m["image_id"]))
        n_copies = max(duplicates[m["image_id"]]["n_copies"] for m in members) if split == "member" else 0
        rows.append({"prompt_id": hash63(normalized(chosen["caption"])), "caption": chosen["caption"], "image_id": chosen["image_id"],
                     "cluster_id": cluster_id, "n_copies": n_copies, "split": split})
    return rows


def drawn(rows: list[dict[str, Any]], n: int, seed: int, purpose: str) -> list[dict[str, Any]]:
    """n of the rows at random: the first by a hash of seed and cluster, so that a larger n adds and replaces nothing."""
    return sorted(rows, key=lambda r: hash63(str(seed), purpose, str(r["cluster_id"])))[:n]


def duplicated(rows: list[dict[str, Any]], n: int, seed: int) -> list[dict[str, Any]]:
    """The n most duplicated clusters: whole bins from the top (a census), of the last bin a simple random sample."""
    chosen: list[dict[str, Any]] = []
    for least, name in reversed(BINS[1:]):
        of_bin = [r for r in rows if r["n_copies"] >= least and copies_bin(r["n_copies"]) == name]
        taken = drawn(of_bin, n - len(chosen), seed, "duplicated")
        chosen += [{**r, "arm": "duplicated", "inclusion_probability": len(taken) / len(of_bin)} for r in taken]
    return chosen


def outliers(rows: list[dict[str, Any]], n: int, image_ids: np.ndarray, vectors: np.ndarray) -> list[dict[str, Any]]:
    """The n rows whose descriptors are farthest from their nearest neighbour (Carlini et al. 2023, 4.3)."""
    if not rows or not n:
        return []
    position = {int(image_id): i for i, image_id in enumerate(image_ids)}
    own = np.array([position[r["image_id"]] for r in rows])
    similarity, _ = neighbours.nearest(vectors, vectors[own], 2)
    order = np.lexsort((image_ids[own], similarity[:, -1]))[:n]
    return [{**rows[i], "arm": "outlier", "inclusion_probability": None} for i in order.tolist()]


def paraphrases(chosen: list[dict[str, Any]], members: list[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """Of the first n captions that have both rare and common words: the caption less its rare words, on the seeds of the caption.

    Rare words name one picture; what comes back without them does not hang on them. members: rows whose captions say what is rare.
    """
    n_with = Counter(word for r in members for word in set(normalized(r["caption"]).split()))
    made = []
    for r in chosen:
        kept = [word for word in r["caption"].split() if n_with[normalized(word)] > max(1, RARE_SHARE * len(members))]
        if kept and len(kept) < len(r["caption"].split()):
            made.append({**r, "caption": " ".join(kept), "arm": "paraphrased", "inclusion_probability": None, "seed_id": r["prompt_id"]})
    return made[:n]


def prompts(rows: list[dict[str, Any]], custom: list[str], image_ids: np.ndarray, vectors: np.ndarray, settings: dict[str, Any]) -> pa.Table:
    """The table, of `candidates`; where a caption serves two arms, the first arm in order of ARMS has it."""
    seed = settings["seed"]
    members = [r for r in rows if r["split"] == "member"]
    held_out = [r for r in rows if r["split"] == "held_out"]
    singles = [r for r in members if r["n_copies"] == 1]
    chosen = duplicated(members, settings["n_duplicated"], seed)
    reworded = paraphrases(chosen, members, settings["n_paraphrased"])
    chosen += outliers(singles, settings["n_outlier"], image_ids, vectors)
    for arm, pool in (("singleton", singles), ("held_out", held_out)):
        taken = drawn(pool, settings[f"n_{arm}"], seed, arm)
        chosen += [{**r, "arm": arm, "inclusion_probability": len(taken) / len(pool)} for r in taken]
    chosen += reworded
    chosen += [{"caption": c, "image_id": None, "cluster_id": None, "n_copies": None, "arm": "custom", "inclusion_probability": None} for c in custom]
    first = {hash63(normalized(r["caption"])): r for r in reversed(chosen)}
    require_distinct(np.array([hash63(text) for text in {normalized(r["caption"]) for r in first.values()}]), "prompt_id")
    if not first:
        raise UserError("no prompt: the training set has no good image with a caption, and prompts.custom names no file")
    calibrating = calibrating_controls([r for r in chosen if r["arm"] == "held_out" and first[r["prompt_id"]] is r], settings["n_calibrating"])
    names = ("caption", "image_id", "cluster_id", "arm", "inclusion_probability", "n_copies")
    return _tables.table([{**{k: r[k] for k in names}, "prompt_id": prompt_id, "seed_id": r.get("seed_id", prompt_id),
                           "copies_bin": copies_bin(r["n_copies"]) if r["n_copies"] else None, "is_calibrating": prompt_id in calibrating}
                          for prompt_id, r in first.items()], SCHEMA)


def calibrating_controls(controls: list[dict[str, Any]], n: int) -> set[int]:
    """prompt_id of the last n controls in the order in which they were drawn, at most a third of them: most must be left to judge."""
    n = min(n, len(controls) // 3)
    return {r["prompt_id"] for r in controls[len(controls) - n:]}


def main() -> None:
    """Choose, write data/prompts."""
    settings = _settings.settings("prompts")
    counted = {r["image_id"]: r for r in _tables.read("duplicates").to_pylist()}
    metadata, vectors = _tables.descriptors("image_embeddings")
    listed = _tables.read("inputs", side="prompts").to_pylist()
    custom = [line.strip() for row in listed for line in (Path(row["root"]) / row["path"]).read_text(encoding="utf-8").splitlines() if line.strip()]
    rows = candidates(_tables.read("images").to_pylist(), counted)
    made = prompts(rows, custom, metadata.column("image_id").to_numpy(), vectors, settings)
    arms = Counter(made.column("arm").to_pylist())
    print("prompts: " + ", ".join(f"{arms[arm]} {arm}" for arm in ARMS if arms[arm]))
    _tables.write(made, CHECKS, "prompts")


if __name__ == "__main__":
    _stage.run(main)
