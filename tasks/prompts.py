"""Which captions are probed, by arm. One row per prompt.

Targets are the most duplicated images, outliers and singletons; controls are held-out images that share nothing with a member:
some of them set thresholds, the others judge. Paraphrases of the duplicated captions and a custom list may stand beside them, and
further captions of the chosen clusters. Captions that are equal after Unicode and space normalisation count once.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import _library, _settings, _stage, _tables
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
        column("caption_rank", pa.int32(), "0: its cluster's most frequent caption, on which all rates rest; 1, 2: further captions, listed apart"),
        column("is_calibrating", pa.bool_(), "A control that sets thresholds, and therefore judges nothing"),
    ],
)
CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "arm", "value_set": list(ARMS)}},
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "copies_bin", "value_set": [name for _, name in BINS]}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "inclusion_probability", "min_value": 0, "max_value": 1, "strict_min": True}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "caption_rank", "min_value": 0, "max_value": 2}},
    {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}},
]
CANDIDATE = {"prompt_id": pa.int64(), "caption": pa.string(), "image_id": pa.int64(), "cluster_id": pa.int64(), "n_copies": pa.int32(),
             "split": pa.string(), "caption_rank": pa.int32()}  # columns of what can be prompted
OF_NO_IMAGE = dict.fromkeys(["image_id", "cluster_id", "n_copies", "inclusion_probability"])
OUTLIER_POOL = 20_000  # clusters
RARE_SHARE = 0.005  # a word is rare when at most this share of the training set's captions has it
MAX_CAPTIONS = 3  # of a cluster
MAX_CHARACTERS = 10_000  # of a line of a custom list: with a longer one it is some other kind of file
BATCH = 1 << 14  # rows that are Python's at once: of the rest there may be millions


def normalized(caption: str) -> str:
    """The caption under which prompts are told apart: NFKC, single spaces, lower case."""
    return " ".join(unicodedata.normalize("NFKC", caption).split()).lower()


def copies_bin(n_copies: int) -> str:
    """The bin of a number of copies."""
    return [name for least, name in BINS if n_copies >= least][-1]


def promptable(images: pa.Table, counted: pa.Table, comparable: np.ndarray) -> pa.Table:
    """image_id, split, caption, cluster_id and n_copies of the images whose caption may be asked; rows of `images` and of `duplicates`.

    Without those that leaked, are blank or have no caption; and without held-out images that are not comparable [n]: a control that
    nothing could flag would read as one that nothing did flag.
    """
    may_control = pc.or_(pc.equal(images["split"], "member"), pa.array(comparable))
    is_shown = pc.and_(pc.is_valid(images["caption"]), pc.invert(pc.fill_null(images["is_degenerate"], False)))
    asked = images.filter(pc.and_(may_control, is_shown)).select(["image_id", "split", "caption"])
    allowed = counted.filter(pc.invert(counted["is_leaked"])).select(["image_id", "cluster_id", "n_copies"])
    return asked.join(allowed, "image_id", join_type="inner")


def of_cluster(members: list[dict[str, Any]], n_captions: int) -> list[dict[str, Any]]:
    """The most frequent captions of one cluster's promptable images, each on the first image that has it: the centre, else the smallest id."""
    frequency = Counter(normalized(m["caption"]) for m in members)
    first: dict[str, dict[str, Any]] = {}
    for m in sorted(members, key=lambda m: (-frequency[normalized(m["caption"])], m["image_id"] != m["cluster_id"], m["image_id"])):
        first.setdefault(normalized(m["caption"]), m)
    n_copies = max(m["n_copies"] for m in members) if members[0]["split"] == "member" else 0
    return [m | {"prompt_id": hash63(text), "n_copies": n_copies, "caption_rank": rank} for rank, (text, m) in enumerate(islice(first.items(), n_captions))]


def candidates(images: pa.Table, counted: pa.Table, comparable: np.ndarray, n_captions: int = 1) -> pa.Table:
    """What can be prompted, in order of split and cluster: of each cluster its n_captions most frequent captions. Columns as CANDIDATE."""
    ordered = promptable(images, counted, comparable).sort_by([(key, "ascending") for key in ("split", "cluster_id", "image_id")])
    named = (r for batch in ordered.to_batches(BATCH) for r in batch.to_pylist() if normalized(r["caption"]))
    made = (row for _, members in groupby(named, lambda r: (r["split"], r["cluster_id"])) for row in of_cluster(list(members), n_captions))
    return pa.Table.from_batches(_batches(made), pa.schema(CANDIDATE))


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    while some := list(islice(rows, BATCH)):
        yield pa.RecordBatch.from_pylist(some, pa.schema(CANDIDATE))


def drawn(cluster_ids: np.ndarray, n: int, seed: int, purpose: str) -> np.ndarray:
    """[<= n] positions at random: the first by a hash of seed and cluster, so that a larger n adds and replaces nothing."""
    keys = np.fromiter((hash63(str(seed), purpose, str(c)) for c in cluster_ids.tolist()), np.int64, len(cluster_ids))
    return np.argsort(keys, kind="stable")[:n]


def chosen_of(pool: pa.Table, positions: np.ndarray, arm: str, chance: float | None) -> list[dict[str, Any]]:
    """Rows of the pool, as prompts of an arm."""
    return [r | {"arm": arm, "inclusion_probability": chance} for r in pool.take(positions).to_pylist()]


def duplicated(pool: pa.Table, n: int, seed: int) -> list[dict[str, Any]]:
    """The n most duplicated clusters: whole bins from the top (a census), of the last bin a simple random sample."""
    chosen: list[dict[str, Any]] = []
    n_copies, most = pool["n_copies"].to_numpy(), np.inf
    for least, _ in reversed(BINS[1:]):
        of_bin = np.flatnonzero((n_copies >= least) & (n_copies < most))
        taken = of_bin[drawn(pool["cluster_id"].to_numpy()[of_bin], n - len(chosen), seed, "duplicated")]
        chosen += chosen_of(pool, taken, "duplicated", len(taken) / max(len(of_bin), 1))
        most = least
    return chosen


def outliers(pool: pa.Table, n: int, image_ids: np.ndarray, vectors: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """The n clusters whose descriptors are farthest from their nearest neighbour (Carlini et al. 2023, 4.3); image_ids [m] ascending.

    Of more than OUTLIER_POOL clusters a random sample of so many is compared with all images: each against each takes hours.
    """
    if not pool.num_rows or not n:
        return []
    if pool.num_rows > OUTLIER_POOL:
        pool = pool.take(np.sort(drawn(pool["cluster_id"].to_numpy(), OUTLIER_POOL, seed, "outlier")))
    own = np.searchsorted(image_ids, pool["image_id"].to_numpy())
    similarity, _ = neighbours.nearest(vectors, vectors[own], 2)
    return chosen_of(pool, np.lexsort((image_ids[own], similarity[:, -1]))[:n], "outlier", None)


def paraphrases(chosen: list[dict[str, Any]], members: pa.Table, n: int) -> list[dict[str, Any]]:
    """Of the first n captions that have both rare and common words: the caption less its rare words, on the seeds of the caption.

    Rare words name one picture; what comes back without them does not hang on them. members: clusters whose captions say what is rare.
    """
    if not n:
        return []
    captions = (caption for chunk in members["caption"].chunks for caption in chunk.to_pylist())
    n_with = Counter(word for caption in captions for word in set(normalized(caption).split()))
    made = []
    for r in chosen:
        kept = [word for word in r["caption"].split() if n_with[normalized(word)] > max(1, RARE_SHARE * members.num_rows)]
        if kept and len(kept) < len(r["caption"].split()):
            made.append({**r, "caption": " ".join(kept), "arm": "paraphrased", "inclusion_probability": None, "seed_id": r["prompt_id"]})
    return made[:n]


def further(rows: pa.Table, chosen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The further captions of the clusters that were chosen, in their arms: targets and controls alike."""
    of = {(r["split"], r["cluster_id"]): r for r in chosen if "split" in r and r["arm"] != "paraphrased"}
    clusters = pa.array([cluster_id for _, cluster_id in of], pa.int64())
    beyond = rows.filter(pc.and_(pc.greater(rows["caption_rank"], 0), pc.is_in(rows["cluster_id"], clusters))).to_pylist()
    found = [(of.get((r["split"], r["cluster_id"])), r) for r in beyond]
    return [chosen_one | r for chosen_one, r in found if chosen_one]


def prompts(rows: pa.Table, custom: list[str], image_ids: np.ndarray, vectors: np.ndarray, settings: dict[str, Any]) -> pa.Table:
    """The table, of `candidates`; where a caption serves two arms, the first arm in order of ARMS has it, further captions last."""
    seed = settings["seed"]
    main_captions = rows.filter(pc.equal(rows["caption_rank"], 0))
    members, held_out = (main_captions.filter(pc.equal(main_captions["split"], split)) for split in ("member", "held_out"))
    singles = members.filter(pc.equal(members["n_copies"], 1))
    chosen = duplicated(members, settings["n_duplicated"], seed)
    reworded = paraphrases(chosen, members, settings["n_paraphrased"])
    chosen += outliers(singles, settings["n_outlier"], image_ids, vectors, seed)
    for arm, pool in (("singleton", singles), ("held_out", held_out)):
        taken = drawn(pool["cluster_id"].to_numpy(), settings[f"n_{arm}"], seed, arm)
        chosen += chosen_of(pool, taken, arm, len(taken) / max(pool.num_rows, 1))
    chosen += reworded
    chosen += [OF_NO_IMAGE | {"caption": c, "arm": "custom", "caption_rank": 0} for c in custom]
    first = {hash63(normalized(r["caption"])): r for r in reversed(chosen)}
    if not first:
        raise UserError("no prompt: the training set has no good image with a caption, and prompts.custom names no file")
    calibrating = calibrating_controls([r for r in chosen if r["arm"] == "held_out" and first[r["prompt_id"]] is r], settings["n_calibrating"])
    first = {r["prompt_id"]: r for r in reversed(further(rows, list(first.values())))} | first
    require_distinct(np.array([hash63(text) for text in {normalized(r["caption"]) for r in first.values()}]), "prompt_id")
    names = ("caption", "image_id", "cluster_id", "arm", "inclusion_probability", "n_copies", "caption_rank")
    return _tables.table([{**{k: r[k] for k in names}, "prompt_id": prompt_id, "seed_id": r.get("seed_id", prompt_id),
                           "copies_bin": copies_bin(r["n_copies"]) if r["n_copies"] else None,
                           "is_calibrating": r["arm"] == "held_out" and r["cluster_id"] in calibrating} for prompt_id, r in first.items()], SCHEMA)


def calibrating_controls(controls: list[dict[str, Any]], n: int) -> set[int]:
    """cluster_id of the last n controls in the order in which they were drawn, at most a third of them: most must be left to judge."""
    n = min(n, len(controls) // 3)
    return {r["cluster_id"] for r in controls[len(controls) - n:]}


def main() -> None:
    """Choose, write data/prompts."""
    settings = _settings.settings("prompts")
    if settings["n_captions"] not in range(1, MAX_CAPTIONS + 1):
        raise UserError(f"prompts.n_captions is {settings['n_captions']}; ask for 1 to {MAX_CAPTIONS} captions of each cluster")
    counted = _tables.read("duplicates", columns=["image_id", "cluster_id", "n_copies", "is_leaked"])
    images = _tables.read("images", columns=["image_id", "split", "caption", "pixel_digest", "is_degenerate", "status"])
    image_ids, vectors = _described() if settings["n_outlier"] else (np.zeros(0, np.int64), np.zeros((0, 0), np.float32))
    found = candidates(images, counted, _library.comparable(images), settings["n_captions"])
    made = prompts(found, _custom(), image_ids, vectors, settings)
    arms = Counter(made["arm"].to_pylist())
    print("prompts: " + ", ".join(f"{arms[arm]} {arm}" for arm in ARMS if arms[arm]))
    _tables.write(made, CHECKS, "prompts")


def _described() -> tuple[np.ndarray, np.ndarray]:
    metadata, vectors = _tables.descriptors("image_embeddings")
    return metadata["image_id"].to_numpy(), vectors


def _custom() -> list[str]:
    """The lines of the custom list, without empty ones."""
    listed = _tables.read("inputs", side="prompts").to_pylist()
    return [line for row in listed for line in _lines(Path(row["root"]) / row["path"]) if line]


def _lines(path: Path) -> Iterator[str]:
    """Lines without the space around them. Raises UserError for a file that is no text, or no list of prompts."""
    with path.open(encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(iter(lambda: file.readline(MAX_CHARACTERS + 1), ""), 1):
                if len(line) > MAX_CHARACTERS:
                    raise UserError(f"prompts.custom: line {number} of {path} has over {MAX_CHARACTERS:,} characters; give one prompt a line")
                yield line.strip()
        except UnicodeDecodeError:
            raise UserError(f"prompts.custom: {path} is not UTF-8; save it as UTF-8 text, one prompt a line") from None


if __name__ == "__main__":
    _stage.run(main)
