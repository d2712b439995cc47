"""What a filter must know to stop what was extracted. One row per blocked entry.

An entry is a training image that came back, a copy of it that the release made, or such a copy as a JPEG; copies are much more like
further copies than the training image is. Thresholds are set on ordinary pictures of one half of the prompts and judged on the other
half. Beside the table: `filter_rates`, how often the filter blocks what it should and should not, and export/, the folder for hosts.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import _blocklists, _canaries, _embedders, _pictures, _settings, _stage, _tables, _training_sets
from tasks._schemas import column, schema
from tasks.measures import blocking, rates, verdicts
from tasks.measures.identity import hash63

SCHEMA = schema(
    ["entry_id"],
    [
        column("entry_id", pa.int64(), "63-bit hash of release, kind and what was described"),
        column("release", pa.string(), "Release under audit"),
        column("cluster_id", pa.int64(), "Cluster of the training image that it stops"),
        column("kind", pa.string(), "training_image, generation (a copy that the release made) or reencoded (such a copy as a JPEG)"),
        column("generation_id", pa.int64(), "The copy; NULL for a training image", nullable=True),
        column("image_id", pa.int64(), "The training image; NULL for a copy", nullable=True),
        column("pixel_digest", pa.string(), "sha256 of its canonical pixels"),
        column("pdq", pa.string(), "PDQ hash, 64 hexadecimal digits"),
        column("pdq_quality", pa.int32(), "PDQ quality, 0 to 100"),
        column("layout", pa.string(), "Colour layout: mean red, green, blue of 4 x 4 tiles, row by row, 96 hexadecimal digits"),
        column("nearest_ordinary", pa.float32(), "Largest likeness of a calibrating ordinary picture to it; NULL without any", nullable=True),
        column("threshold", pa.float32(), "Likeness from which it blocks a picture: similarity less what colours and hash differ"),
    ],
)
FILTER_RATES = schema(
    ["kind", "transform"],
    [
        column("kind", pa.string(), "returned (copies of extracted images), ordinary, control (the held-out ones of these), bordering or calibrating"),
        column("transform", pa.string(), "none, or how the pictures were altered first"),
        column("release", pa.string(), "Release under audit"),
        column("is_promised", pa.bool_(), "Whether the filter is built to stand this alteration"),
        column("n_prompts", pa.int32(), "Prompts that the pictures are of: pictures of one prompt are alike"),
        column("n_pictures", pa.int32(), "Pictures screened"),
        column("n_blocked", pa.int32(), "Of these, blocked"),
        column("blocked_rate", pa.float64(), "n_blocked / n_pictures; NULL without a picture", nullable=True),
        column("low", pa.float64(), "Lower end of its 95 % Clopper-Pearson interval, pictures taken as independent"),
        column("high", pa.float64(), "Upper end of its 95 % Clopper-Pearson interval, pictures taken as independent"),
        column("n_prompts_blocked", pa.int32(), "Prompts of which a picture was blocked"),
        column("prompts_high", pa.float64(), "Upper end of the 95 % Clopper-Pearson interval of the share of prompts"),
    ],
)
CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "kind", "value_set": ["training_image", "generation", "reencoded"]}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "threshold", "min_value": 0, "max_value": 1.1}},
    {"type": "expect_column_value_lengths_to_equal", "kwargs": {"column": "pdq", "value": 64}},
    {"type": "expect_column_value_lengths_to_equal", "kwargs": {"column": "layout", "value": 2 * _blocklists.LAYOUT_BYTES}},
]
RATES_CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_pair_values_a_to_be_greater_than_b", "kwargs": {"column_A": "n_pictures", "column_B": "n_blocked", "or_equal": True}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "blocked_rate", "min_value": 0, "max_value": 1}},
]
REENCODED, UNALTERED = "reencoded", "none"
RETURNED, ORDINARY, CONTROL, BORDERING, CALIBRATING = "returned", "ordinary", "control", "bordering", "calibrating"


@dataclass(frozen=True)
class Pictures:
    """Described pictures, row-aligned."""

    vectors: np.ndarray  # [n, d] float32 of unit length
    hashes: np.ndarray  # [n, 32] uint8 PDQ
    quality: np.ndarray  # [n] int PDQ quality
    layouts: np.ndarray  # [n, 48] uint8 colour layout

    def __getitem__(self, rows: Any) -> "Pictures":
        return Pictures(self.vectors[rows], self.hashes[rows], self.quality[rows], self.layouts[rows])

    def likeness(self, entries: "Pictures", pdq_quality: int) -> np.ndarray:
        """[n, e] to each entry, as the filter finds it; below pdq_quality a hash says too little."""
        clear = self.quality >= pdq_quality, entries.quality >= pdq_quality
        n_bits = blocking.told_bits(blocking.hash_distances(self.hashes, entries.hashes), *clear)
        return blocking.likeness(self.vectors @ entries.vectors.T, blocking.layout_distances(self.layouts, entries.layouts), n_bits)


def calibrates(prompt_id: int) -> bool:
    """Whether an ordinary prompt sets thresholds; the other half judges them."""
    return hash63("blocklist", str(prompt_id)) % 2 == 0


def copies(matches: list[dict[str, Any]], findings: list[dict[str, Any]], s: dict[str, Any]) -> dict[int, int]:
    """Cluster that each generation returns, by generation_id: medoids of findings, and every generation that is verbatim to an extracted cluster."""
    extracted = {r["cluster_id"] for r in findings if r["is_extracted"]}
    found: dict[int, tuple[float, int]] = {}
    for m in matches:
        if m["split"] == "member" and m["cluster_id"] in extracted and verdicts.is_verbatim(m["l2"], m["margin"], s["verbatim_l2"], s["verbatim_margin"]):
            found[m["generation_id"]] = min(found.get(m["generation_id"], (2.0, 0)), (m["l2"], m["cluster_id"]))
    return {r["generation_id"]: r["cluster_id"] for r in findings if r["is_extracted"]} | {g: cluster for g, (_, cluster) in found.items()}


def kinds(findings: list[dict[str, Any]], matches: list[dict[str, Any]], s: dict[str, Any]) -> dict[int, str]:
    """What the pictures of each prompt are to the filter, by prompt_id; extracted and undecided ones are left out.

    A prompt is ordinary where no picture of it comes as near to an extracted image as a near copy does, and returns no training image; of the
    others (`bordering`) the verdict itself is a matter of a few pixels: they set nothing and are no error, and are counted apart.
    """
    extracted = {r["cluster_id"] for r in findings if r["is_extracted"]}
    near = {m["prompt_id"] for m in matches if m["split"] == "member" and m["margin"] is not None
            and (m["margin"] <= s["near_copy_margin"] if m["cluster_id"] in extracted else
                 verdicts.is_verbatim(m["l2"], m["margin"], s["verbatim_l2"], s["verbatim_margin"]))}
    made = {}
    for r in findings:
        if not r["is_extracted"] and r["match_type"] != "undecided":
            half = CALIBRATING if calibrates(r["prompt_id"]) else ORDINARY
            made[r["prompt_id"]] = BORDERING if r["prompt_id"] in near else half
    return made


def listed(clusters: np.ndarray, vectors: np.ndarray, n: int) -> np.ndarray:
    """Rows of copies that stand for all of their cluster [m], at most n of each; vectors [m, d] of unit length."""
    chosen = []
    for cluster in np.unique(clusters):
        rows = np.flatnonzero(clusters == cluster)
        chosen.append(rows[blocking.spread(vectors[rows], n)])
    return np.concatenate([np.zeros(0, np.int64), *chosen])


def thresholds(entries: Pictures, calibrating: Pictures, s: dict[str, Any]) -> tuple[float, np.ndarray]:
    """Likeness from which pictures are blocked, and [e] the largest likeness of a calibrating picture to each entry (nan without)."""
    like = calibrating.likeness(entries, s["pdq_quality"])
    nearest = like.max(axis=0) if len(like) else np.full(len(entries.vectors), np.nan)
    return blocking.likeness_threshold(like.ravel(), s["min_likeness"]), nearest


def blocked(pictures: Pictures, entries: Pictures, threshold: float, s: dict[str, Any]) -> np.ndarray:
    """[n] bool: which pictures the entries block, as the filter does it."""
    return np.asarray((pictures.likeness(entries, s["pdq_quality"]) >= threshold).any(axis=1))


def rate_row(release: str, kind: str, transform: str, prompts: np.ndarray, is_blocked: np.ndarray) -> dict[str, Any]:
    """A row of FILTER_RATES, of pictures [n] with their prompts [n]."""
    n, k, of = len(is_blocked), int(is_blocked.sum()), len(np.unique(prompts))
    low, high = rates.clopper_pearson(k, n)
    n_prompts_blocked = len(np.unique(prompts[is_blocked]))
    return {"kind": kind, "transform": transform, "release": release, "is_promised": transform == UNALTERED or transform in _canaries.COPIES,
            "n_prompts": of, "n_pictures": n, "n_blocked": k, "blocked_rate": k / n if n else None, "low": low, "high": high,
            "n_prompts_blocked": n_prompts_blocked, "prompts_high": rates.clopper_pearson(n_prompts_blocked, of)[1]}


def sampled(rows: np.ndarray, ids: list[int], n: int) -> np.ndarray:
    """At most n of the rows, the first by a hash of their id."""
    return np.array(sorted(rows.tolist(), key=lambda row: hash63("altered", str(ids[row])))[:n], np.int64)


def blocklist(entries: list[dict[str, Any]], described: Pictures, threshold: float, nearest: np.ndarray) -> pa.Table:
    """The table, of entries (release, kind, cluster_id, generation_id, image_id, pixel_digest) and what they look like, row-aligned."""
    rows = [e | {"entry_id": hash63(e["release"], e["kind"], str(e["generation_id"] or e["image_id"])), "pdq": described.hashes[i].tobytes().hex(),
                 "pdq_quality": int(described.quality[i]), "layout": described.layouts[i].tobytes().hex(), "nearest_ordinary": float(nearest[i]),
                 "threshold": threshold} for i, e in enumerate(entries)]
    return _tables.table(rows or {name: [] for name in SCHEMA.names}, SCHEMA)


def main(release: str) -> None:
    """List what a filter must know, measure it, export it; write data/blocklist/<release>."""
    asked = _settings.settings("findings")
    s = _settings.settings("blocklist") | {k: asked[k] for k in ("verbatim_l2", "verbatim_margin", "near_copy_margin")}
    world = _World(release, s)
    entries, described = world.entries()
    threshold, nearest = thresholds(described, world.described(world.rows_of(CALIBRATING)), s)
    made = blocklist(entries, described, threshold, nearest)
    told = _measured(world, described, threshold)
    _tables.write(_tables.table(told, FILTER_RATES), RATES_CHECKS, "blocklist", release, side="filter_rates")
    _tables.write(made, CHECKS, "blocklist", release)
    order = np.argsort([hash63(e["release"], e["kind"], str(e["generation_id"] or e["image_id"])) for e in entries], kind="stable")
    _export(world, made, described.vectors[order], told)
    n_images = len(set(made["cluster_id"].to_pylist()))
    print(f"blocklist: '{release}': {made.num_rows} entries for {n_images} images, blocked from a likeness of {threshold:.3f} on")


class _World:
    """What a release's audit knows of its pictures."""

    def __init__(self, release: str, s: dict[str, Any]) -> None:
        self.release, self.s = release, s
        self.size_px = _tables.read("inputs", side="resolution").column("size_px")[0].as_py()
        findings, matches = (_tables.read(noun, release).to_pylist() for noun in ("findings", "matches"))
        self.images = {r["image_id"]: r["cluster_id"] for r in findings if r["is_extracted"]}  # that came back, and their clusters
        self.copies, self.kind = copies(matches, findings, s), kinds(findings, matches, s)
        self.is_control = {r["prompt_id"]: r["arm"] == "held_out" for r in findings}
        kept = _tables.read("generations", release).filter(pc.field("status") != "not_kept")
        self.generations = kept.to_pylist()  # row by row with the descriptors, both in order of generation_id
        self.ids = [g["generation_id"] for g in self.generations]
        self.prompts = np.array([g["prompt_id"] for g in self.generations], np.int64)
        self.vectors = _tables.descriptors("generation_embeddings", release)[1]
        self.reader, self.training_set = _pictures.GenerationReader(release), _training_sets.Reader()
        image_embeddings = _settings.settings("image_embeddings")
        self.model = _embedders.embedder(image_embeddings["descriptor"], image_embeddings["path"], _settings.settings("compute")["device"])

    def rows_of(self, kind: str) -> np.ndarray:
        """Rows of generations of prompts of this kind."""
        of = ORDINARY if kind == CONTROL else kind
        return np.array([i for i, p in enumerate(self.prompts.tolist()) if self.kind.get(p) == of and (kind != CONTROL or self.is_control[p])], np.int64)

    def described(self, rows: np.ndarray, alter: _canaries.Alteration | None = None) -> Pictures:
        """The pictures of rows of generations, altered first where asked for."""
        shown = [self.reader.pixels(self.generations[i]) for i in rows]
        if alter is not None:
            shown = [np.ascontiguousarray(alter(p, np.random.default_rng(self.ids[i]))) for i, p in zip(rows, shown, strict=True)]
        vectors = self.vectors[rows] if alter is None or not len(rows) else _stored(self.model.descriptors(shown, self.size_px))
        small = [_pictures.resized(p, self.size_px) for p in shown]
        return Pictures(vectors, *_hashes([_pictures.pdq(p) for p in small]), _layouts(small))

    def entries(self, parity: int | None = None) -> tuple[list[dict[str, Any]], Pictures]:
        """The entries, and what they look like; of copies whose number within their prompt is even (0) or odd (1) alone, where parity says so."""
        rows = np.array([i for i, g in enumerate(self.generations) if g["generation_id"] in self.copies and parity in (None, g["index"] % 2)], np.int64)
        clusters = np.array([self.copies[self.ids[i]] for i in rows], np.int64)
        of_list = listed(clusters, self.vectors[rows], self.s["n_entries"])
        again = listed(clusters, self.vectors[rows], self.s["n_reencoded"]) if self.s["n_reencoded"] else of_list[:0]
        rows, again = rows[of_list], rows[again]
        entries, parts = self._of_training_set()
        entries += [self._entry("generation", i) for i in rows] + [self._entry(REENCODED, i) for i in again]
        parts += [self.described(rows), self.described(again, _canaries.COPIES[REENCODED])]
        return entries, Pictures(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("vectors", "hashes", "quality", "layouts")))

    def _entry(self, kind: str, row: int) -> dict[str, Any]:
        g = self.generations[row]
        digest = g["sha256"] if kind == "generation" else _pictures.pixel_digest(_canaries.COPIES[REENCODED](self.reader.pixels(g), np.random.default_rng(0)))
        return {"release": self.release, "kind": kind, "cluster_id": self.copies[g["generation_id"]], "generation_id": g["generation_id"], "image_id": None,
                "pixel_digest": digest}

    def _of_training_set(self) -> tuple[list[dict[str, Any]], list[Pictures]]:
        metadata, vectors = _tables.descriptors("image_embeddings")
        place = {image_id: i for i, image_id in enumerate(metadata["image_id"].to_pylist())} if self.images else {}
        found = _tables.read("images")
        found = found.filter(pc.is_in(found["image_id"], pa.array(list(self.images), pa.int64()))).to_pylist()
        entries = [{"release": self.release, "kind": "training_image", "cluster_id": self.images[r["image_id"]], "generation_id": None,
                    "image_id": r["image_id"], "pixel_digest": r["pixel_digest"]} for r in found]
        hashes = _hashes([(bytes.fromhex(r["pdq"]), r["pdq_quality"]) for r in found])
        rows = np.array([place[r["image_id"]] for r in found], np.int64)
        layouts = _layouts([_pictures.resized(self.training_set.pixels(r), self.size_px) for r in found])
        return entries, [Pictures(vectors[rows].reshape(len(rows), self.vectors.shape[1]), *hashes, layouts)]


def _stored(vectors: np.ndarray) -> np.ndarray:
    """Descriptors as the export holds them."""
    held = vectors.astype(np.float16).astype(np.float32)
    return np.asarray(held / np.linalg.norm(held, axis=1, keepdims=True))


def _layouts(small: list[np.ndarray]) -> np.ndarray:
    return np.array([blocking.layout(p) for p in small], np.uint8).reshape(len(small), _blocklists.LAYOUT_BYTES)


def _hashes(found: list[tuple[bytes, int]]) -> tuple[np.ndarray, np.ndarray]:
    """[n, 32] uint8 hashes and [n] their quality."""
    held = np.frombuffer(b"".join(h for h, _ in found), np.uint8).reshape(len(found), 32)
    return held, np.array([quality for _, quality in found], np.int64)


def _measured(world: _World, entries: Pictures, threshold: float) -> list[dict[str, Any]]:
    """Rows of FILTER_RATES. Copies are judged by the entries of the other half of each prompt's copies: fewer than the list has."""
    def row(kind: str, transform: str, rows: np.ndarray, hit: np.ndarray) -> dict[str, Any]:
        return rate_row(world.release, kind, transform, world.prompts[rows], hit)

    told = [row(kind, UNALTERED, rows, blocked(world.described(rows), entries, threshold, world.s))
            for kind in (CALIBRATING, ORDINARY, CONTROL, BORDERING) for rows in [world.rows_of(kind)]]
    others = [world.entries(1 - parity)[1] for parity in (0, 1)]
    returned = np.array([i for i, number in enumerate(world.ids) if number in world.copies], np.int64)
    for transform, alter in ({UNALTERED: None} | _canaries.ALTERATIONS).items():
        some = returned if alter is None else sampled(returned, world.ids, world.s["n_altered"])
        seen, index = world.described(some, alter), np.array([world.generations[i]["index"] % 2 for i in some], np.int64)
        hit = np.zeros(len(some), bool)
        for parity in (0, 1):
            hit[index == parity] = blocked(seen[index == parity], others[parity], threshold, world.s)
        told.append(row(RETURNED, transform, some, hit))
        if alter is not None:
            some = sampled(world.rows_of(ORDINARY), world.ids, world.s["n_altered"])
            told.append(row(ORDINARY, transform, some, blocked(world.described(some, alter), entries, threshold, world.s)))
    return told


def _export(world: _World, made: pa.Table, vectors: np.ndarray, told: list[dict[str, Any]]) -> None:
    """Write export/: entries in order of entry_id with their vectors [n, d]."""
    protocol = _tables.read("screening", world.release, side="protocol").to_pylist()[0]
    rates_of = [{k: r[k] for k in ("kind", "transform", "n_prompts", "n_pictures", "n_blocked", "low", "high")} for r in told]
    head = {"release": world.release, **{k: protocol[k] for k in ("model_digest", "protocol_digest")}, "descriptor": world.model.provenance(world.size_px),
            "size_px": world.size_px, "pdq_quality": world.s["pdq_quality"], "rates": rates_of}
    names = [f"{kind}/{number}" for kind, number in zip(made["kind"].to_pylist(), made["entry_id"].to_pylist(), strict=True)]
    columns = {f.name: names if f.name == "image_path" else made[f.name] for f in _blocklists.ENTRIES}
    pictures = _blocklists.training_pictures(list(world.images)) if world.s["with_pictures"] else None
    folder = _tables.folder("blocklist", world.release) / "export"
    _blocklists.write(folder, _tables.table(columns, _blocklists.ENTRIES), vectors.astype(np.float16), head, pictures)


if __name__ == "__main__":
    _stage.run(main)
