"""The verdict on each prompt. One row per prompt.

Is it a copy? is decided on the pair alone: the medoid of the prompt's generations and the picture it is nearest to. Would we have
said so anyway? is answered beside it by the controls: p- and q-values describe the list, they decide no pair.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import _library, _pictures, _settings, _sources, _stage, _tables
from tasks._schemas import column, schema
from tasks.measures import distances, rates, stopping, templates, thumbnails, verdicts
from tasks.measures.identity import hash63

SCHEMA = schema(
    ["finding_id"],
    [
        column("finding_id", pa.int64(), "63-bit hash of (release, prompt_id)"),
        column("release", pa.string(), "Release under audit"),
        column("prompt_id", pa.int64(), "The prompt"),
        column("generation_id", pa.int64(), "Medoid of its generations, chosen among them alone; NULL where not sampled", nullable=True),
        column("image_id", pa.int64(), "Picture the medoid is matched to, or is nearest to; NULL where not sampled, blank, or nothing to compare with",
               nullable=True),
        column("cluster_id", pa.int64(), "Cluster of that picture; NULL without one", nullable=True),
        column("split", pa.string(), "member or held_out: where that picture is from; NULL without one", nullable=True),
        column("arm", pa.string(), "Arm of the prompt"),
        column("seed", pa.int64(), "Seed of the medoid; NULL where not sampled", nullable=True),
        column("match_type", pa.string(), "verbatim, near_copy, template, undecided (a clique without a confirmed image) or none"),
        column("l2_band", pa.string(), "0.05, 0.10 or 0.15: the band of a verbatim match; NULL otherwise", nullable=True),
        column("n_generations", pa.int32(), "Pictures drawn"),
        column("n_evaluations", pa.int64(), "Denoiser evaluations spent on the prompt, screen included"),
        column("n_judged", pa.int32(), "Pictures that every prompt gets and the fresh ones: stopping does not bias these"),
        column("n_hits", pa.int32(), "Of these, single generations that are verbatim to the finding's cluster"),
        column("hit_rate", pa.float64(), "n_hits / n_judged; NULL where not sampled, or nothing to compare with", nullable=True),
        column("hit_rate_low", pa.float64(), "Lower end of its 95 % Clopper-Pearson interval; NULL where hit_rate is", nullable=True),
        column("hit_rate_high", pa.float64(), "Upper end of its 95 % Clopper-Pearson interval; NULL where hit_rate is", nullable=True),
        column("clique_size", pa.int32(), "Largest clique of generations that agree; NULL where not sampled", nullable=True),
        column("l2", pa.float32(), "Of the medoid to the picture, for a template inside its fixed region; NULL where image_id is", nullable=True),
        column("tiled_l2", pa.float32(), "Of the medoid to the picture; NULL where image_id is, and for templates", nullable=True),
        column("adaptive_l2", pa.float32(), "Of the medoid to the picture; NULL where image_id is, and for templates", nullable=True),
        column("margin", pa.float32(), "Of the medoid to the picture's cluster, inside a template's fixed region; NULL where image_id is, or no other is there",
               nullable=True),
        column("similarity", pa.float32(), "Cosine of the descriptors of the medoid and the picture; NULL where image_id is, and for templates", nullable=True),
        column("closest_l2", pa.float32(), "Smallest l2 of any generation of the prompt that is kept to the picture's cluster; NULL where image_id is",
               nullable=True),
        column("template_share", pa.float32(), "Share of variance in the fixed region; NULL but for templates", nullable=True),
        column("template_mask", pa.string(), "Fixed region, a bit per pixel row by row, hexadecimal; NULL but for templates", nullable=True),
        column("eidetic_k", pa.int32(), "Images it was trained on within 0.05 of the picture (0: on other copies only); NULL unless extracted", nullable=True),
        column("eidetic_k_10", pa.int32(), "The same within 0.10; NULL unless extracted", nullable=True),
        column("eidetic_k_15", pa.int32(), "The same within 0.15; NULL unless extracted", nullable=True),
        column("n_copies", pa.int32(), "Copies of the picture this release was trained on; NULL where image_id is", nullable=True),
        column("thumbnail_px", pa.int32(), "Side of the smallest thumbnail of the picture as close as the generation; NULL unless extracted", nullable=True),
        column("code_bytes", pa.int32(), "Entropy-coded size of that thumbnail; NULL unless extracted", nullable=True),
        column("search_bits", pa.float64(), "Bits the search put in: log2(generations x prompts) + 8 x caption bytes; NULL unless extracted", nullable=True),
        column("p_value", pa.float64(), "Rank of its closeness to its own image among matched controls; NULL without any, and for arms not drawn by image",
               nullable=True),
        column("q_value", pa.float64(), "Benjamini-Hochberg over clusters (Simes within), per arm; NULL where p_value is", nullable=True),
        column("caption_rank", pa.int32(), "0: its cluster's most frequent caption; further captions are listed apart: no p-value, and in no rate"),
        column("is_calibrating", pa.bool_(), "A control that set thresholds: it is judged like the others but counts for no error rate"),
        column("is_compared", pa.bool_(), "Whether there were training pictures to compare with: without, nothing is confirmed nor ruled out"),
        column("is_own_image", pa.bool_(), "Whether the picture is that of the caption, or its copy; NULL where not sampled, or nothing to compare with",
               nullable=True),
        column("is_flagged", pa.bool_(), "Matched to a held-out image that did not leak into training: a false alarm, never an extraction"),
        column("is_extracted", pa.bool_(), "verbatim, near_copy or template of a training image"),
    ],
)
CHECKS: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "match_type", "value_set": list(verdicts.MATCH_TYPES)}},
    {"type": "expect_column_pair_values_a_to_be_greater_than_b", "kwargs": {
        "column_A": "hit_rate_high", "column_B": "hit_rate_low", "or_equal": True, "ignore_row_if": "either_value_is_missing"}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "p_value", "min_value": 0, "max_value": 1, "strict_min": True}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "q_value", "min_value": 0, "max_value": 1}},
    {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "is_flagged", "max_value": 0.05}},
]
DELTAS = {"eidetic_k": 0.05, "eidetic_k_10": 0.10, "eidetic_k_15": 0.15}
N_SCORED = 8  # generations that every sampled prompt has: scores are the best of these, alike for controls
JPEG_QUALITY = 75
TARGET_ARMS = ("duplicated", "outlier", "singleton")
UNKNOWN = ("generation_id", "l2_band", "clique_size", "closest_l2", "seed")  # of a prompt that was not sampled
NOT_JUDGED = {"n_judged": 0, "n_hits": 0} | dict.fromkeys(["hit_rate", "hit_rate_low", "hit_rate_high", "is_own_image"])
COPIED = ("l2", "tiled_l2", "adaptive_l2", "margin", "similarity", "image_id", "cluster_id", "split")


@dataclass(frozen=True)
class Evidence:
    """What is known of one sampled prompt."""

    prompt: dict[str, Any]  # its row of prompts
    sampling: dict[str, Any]  # its row of sampling
    generations: list[dict[str, Any]]  # its rows of generations, by index
    matches: dict[int, list[dict[str, Any]]]  # rows of matches by generation_id


def near_copy_similarity(evidence: list[Evidence]) -> float:
    """99th percentile, over calibrating controls, of a control's best similarity to its own image; above 1 (no near copy) without any."""
    best = [max((m["similarity"] for rows in e.matches.values() for m in rows if m["is_own_cluster"]), default=-1.0)
            for e in evidence if e.prompt["is_calibrating"] and not e.prompt["caption_rank"]]
    return float(np.quantile(best, 0.99, method="higher")) if best else 2.0


def verdict(rows: list[dict[str, Any]], sampling: dict[str, Any], min_similarity: float, s: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """Match type of a medoid and the row of its matches that it rests on, the nearest in pixels where there is no match."""
    ordered = sorted(rows, key=lambda m: (m["l2"], m["image_id"]))
    is_verbatim = lambda m: verdicts.is_verbatim(m["l2"], m["margin"], s["verbatim_l2"], s["verbatim_margin"])  # noqa: E731
    is_near_copy = lambda m: verdicts.is_near_copy(m["similarity"], m["margin"], min_similarity, s["near_copy_margin"])  # noqa: E731
    for kind, is_match in (("verbatim", is_verbatim), ("near_copy", is_near_copy)):
        found = [m for m in ordered if is_match(m)]
        of_cluster = (m for m in found if m["cluster_id"] == found[0]["cluster_id"])
        if match := min(of_cluster, key=lambda m: m["split"] != "member", default=None):
            return kind, match  # of a cluster that leaked, the training image
    return ("undecided" if sampling["clique_size"] >= s["clique_size"] else "none"), next(iter(ordered), None)


def hits(evidence: Evidence, cluster_id: int, s: dict[str, Any]) -> tuple[int, int]:
    """Verbatim generations of a cluster and pictures judged, over those that every prompt gets and the fresh ones."""
    n_always = s["n_always_drawn" if evidence.sampling["clique_size"] >= s["clique_size"] else "n_always_kept"]
    judged = [g for g in evidence.generations if g["index"] < n_always or g["is_fresh"]]
    n_hits = sum(any(m["cluster_id"] == cluster_id and verdicts.is_verbatim(m["l2"], m["margin"], s["verbatim_l2"], s["verbatim_margin"])
                     for m in evidence.matches.get(g["generation_id"], [])) for g in judged)
    return n_hits, len(judged)


def score(evidence: Evidence) -> float:
    """Minus the smallest margin to the own image among the first N_SCORED generations; -inf without one."""
    own = [m["margin"] for g in evidence.generations if g["index"] < N_SCORED
           for m in evidence.matches.get(g["generation_id"], []) if m["is_own_cluster"] and m["margin"] is not None]
    return -min(own) if own else -np.inf


def finding(evidence: Evidence, min_similarity: float, s: dict[str, Any]) -> dict[str, Any]:
    """The row of one sampled prompt, less what needs pictures, the training set's counts and the other prompts."""
    medoid = evidence.sampling["medoid_generation_id"]
    kind, match = verdict(evidence.matches.get(medoid, []), evidence.sampling, min_similarity, s)
    row: dict[str, Any] = dict.fromkeys(COPIED)
    row |= {name: match[name] for name in COPIED} if match else {}
    n_hits, n_judged = hits(evidence, row["cluster_id"], s)
    low, high = rates.clopper_pearson(n_hits, n_judged)
    near = (m["l2"] for rows in evidence.matches.values() for m in rows if m["cluster_id"] == row["cluster_id"])
    return row | {
        "generation_id": medoid, "match_type": kind, "l2_band": verdicts.l2_band(row["l2"]) if kind == "verbatim" else None,
        "n_generations": evidence.sampling["n_generations"], "n_judged": n_judged, "n_hits": n_hits, "hit_rate": n_hits / n_judged,
        "hit_rate_low": low, "hit_rate_high": high, "clique_size": evidence.sampling["clique_size"],
        "closest_l2": min(near, default=None), "seed": next(g["seed"] for g in evidence.generations if g["generation_id"] == medoid),
        "is_own_image": row["cluster_id"] is not None and row["cluster_id"] == evidence.prompt["cluster_id"]}


def p_and_q(rows: list[dict[str, Any]], scores: dict[int, float], nearest_other: dict[int, float], n_matched: int) -> None:
    """Set p_value and q_value of the targets, against controls matched in density; scores and nearest_other by prompt_id.

    Of the most frequent captions alone: a target of three captions has three tries to come close, a control of one has one.
    """
    controls = [r for r in rows if r["arm"] == "held_out" and not r["is_calibrating"] and not r["caption_rank"]]
    for arm in TARGET_ARMS if controls else ():
        if not (of_arm := [r for r in rows if r["arm"] == arm and not r["caption_rank"]]):
            continue
        pick = lambda values, of: np.array([values[r["prompt_id"]] for r in of], float)  # noqa: E731
        own = np.array([[r["own_cluster"] == c["own_cluster"] for c in controls] for r in of_arm])
        p = rates.matched_p(pick(scores, of_arm), pick(nearest_other, of_arm), pick(scores, controls), pick(nearest_other, controls), own, n_matched)
        q = rates.cluster_q(p, np.array([r["own_cluster"] for r in of_arm]))
        for r, p_value, q_value in zip(of_arm, p, q, strict=True):
            r["p_value"], r["q_value"] = float(p_value), float(q_value)


def findings(evidence: list[Evidence], unsampled: list[dict[str, Any]], nearest_other: dict[int, float], *, release: str,
             screen_evaluations: dict[int, int], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """All rows, less what `described` adds; unsampled are the rows of prompts that the screen dropped, nearest_other is by image_id."""
    threshold = settings["near_copy_similarity"] or near_copy_similarity(evidence)
    rows = [finding(e, threshold, settings) | _of_prompt(e.prompt, release, e.sampling["n_evaluations"] + screen_evaluations[e.prompt["prompt_id"]])
            for e in evidence]
    for prompt in unsampled:
        rows.append(dict.fromkeys([*COPIED, *UNKNOWN]) | {"match_type": "none", "n_generations": 0} | NOT_JUDGED |
                    _of_prompt(prompt, release, screen_evaluations[prompt["prompt_id"]]))
    scores = {e.prompt["prompt_id"]: score(e) for e in evidence} | {p["prompt_id"]: -np.inf for p in unsampled}
    density = {r["prompt_id"]: nearest_other.get(r["own_image"]) or 1.0 for r in rows}
    p_and_q(rows, scores, density, settings["n_matched_controls"])
    return rows


def _of_prompt(prompt: dict[str, Any], release: str, n_evaluations: int) -> dict[str, Any]:
    return {"finding_id": hash63(release, str(prompt["prompt_id"])), "release": release, "prompt_id": prompt["prompt_id"], "arm": prompt["arm"],
            "n_evaluations": n_evaluations, "own_cluster": prompt["cluster_id"], "own_image": prompt["image_id"], "caption": prompt["caption"],
            **{name: prompt[name] for name in ("caption_rank", "is_calibrating")},
            **dict.fromkeys(["p_value", "q_value", "template_share", "template_mask"])}


def described(row: dict[str, Any], generated: np.ndarray, training: np.ndarray, near: np.ndarray, n_searched: tuple[int, int]) -> dict[str, Any]:
    """How much of the picture came back, for an extracted one: thumbnail_px, code_bytes, search_bits and eidetic_k at three deltas.

    generated, training [h, w, 3]; near [n] = l2 of the picture to every training image; n_searched = generations and prompts of the audit.
    """
    side = thumbnails.thumbnail_px(generated, training)
    small = _pictures.resized(np.rint(training * 255).astype(np.uint8), side)
    return {"thumbnail_px": side, "code_bytes": _pictures.scan_size(small, JPEG_QUALITY),
            "search_bits": thumbnails.search_bits(*n_searched, len(row["caption"].encode())),
            **{name: distances.eidetic_k(near, delta) for name, delta in DELTAS.items()}}


def main(release: str) -> None:
    """Judge every prompt; write data/findings/<release>."""
    settings = _settings.settings("findings") | _stopping(_settings.settings("generations"))
    size_px = _tables.read("inputs", side="resolution").column("size_px")[0].as_py()
    prompts = {r["prompt_id"]: r for r in _tables.read("prompts").to_pylist()}
    evidence, unsampled = _evidence(release, prompts)
    screen = {r["prompt_id"]: r["n_evaluations"] for r in _tables.read("screening", release).to_pylist()}
    rows = findings(evidence, unsampled, _nearest_other(prompts), release=release, screen_evaluations=screen, settings=settings)
    library, generated = _compared(release, size_px), _pictures.GenerationReader(release)
    of_prompt = {e.prompt["prompt_id"]: e for e in evidence}
    n_copies = library.n_copies(_tables.read("duplicates", side="pairs").filter(pc.field("is_copy") & (pc.field("method") == "descriptor")))
    n_searched = (sum(r["n_generations"] for r in rows), len(rows))
    for row in rows:
        row |= {"is_compared": True} if len(library) else NOT_JUDGED | {"is_compared": False}
        e = of_prompt.get(row["prompt_id"])
        if e and row["match_type"] in ("none", "undecided") and row["is_compared"]:
            _as_template(row, generated.reduced([g for g in e.generations if g["status"] == "ok" and not g["is_fresh"]], size_px), library, settings)
        is_match = row["match_type"] in verdicts.EXTRACTED
        row |= {"is_flagged": is_match and row["split"] == "held_out" and not library.row(row["image_id"])["is_leaked"],
                "is_extracted": is_match and row["split"] == "member"}
        row |= dict.fromkeys(["thumbnail_px", "code_bytes", "search_bits", *DELTAS]) | {"n_copies": n_copies.get(row["image_id"])}
        if e and row["is_extracted"]:
            medoid = next(g for g in e.generations if g["generation_id"] == row["generation_id"])
            row |= described(row, generated.reduced([medoid], size_px)[0], library.picture(row["image_id"]), library.l2_to_members(row["image_id"]), n_searched)
    table = _tables.table([{name: r[name] for name in SCHEMA.names} for r in rows], SCHEMA)
    print(f"findings: '{release}': {pc.sum(table.column('is_extracted')).as_py()} extracted, {pc.sum(table.column('is_flagged')).as_py()} controls flagged, "
          f"of {table.num_rows} prompts")
    _tables.write(table, CHECKS, "findings", release)


def _stopping(generations: dict[str, Any]) -> dict[str, Any]:
    """What the verdict must know of how generations were drawn, and of a prompt that is not flagged how many of them were kept."""
    first = stopping.n_always_drawn(*(generations[k] for k in stopping.SETTINGS))
    drawn = generations["budget"] if generations["exhaustive"] else first
    return {k: generations[k] for k in ("clique_size", "edge_l2")} | {
        "n_always_drawn": drawn, "n_always_kept": first if generations["keep"] == "flagged" else drawn}


def _as_template(row: dict[str, Any], pictures: np.ndarray, library: _library.Library, settings: dict[str, Any]) -> None:
    """Turn the row into a template finding where its generations share the fixed region of one; l2 and margin are inside it."""
    chosen = {k: settings[k] for k in ("edge_l2", "clique_size", "template_share")}
    chosen |= {"max_l2": settings["verbatim_l2"], "max_margin": settings["verbatim_margin"]}
    # of the library it reads library[:, mask] and library[row], as pictures held in 8 bits answer them
    found = templates.shared_template(pictures, library.pictures, library.is_of_training_set, chosen)
    if found:
        image = library.rows[int(found["row"])]
        row |= dict.fromkeys(["tiled_l2", "adaptive_l2", "similarity"]) | {
            "match_type": "template", "template_share": found["share"], "template_mask": np.packbits(found["mask"]).tobytes().hex(),
            "l2": found["l2"], "margin": found["margin"], "image_id": image["image_id"], "split": image["split"],
            "cluster_id": image["cluster_id"], "is_own_image": image["cluster_id"] == row["own_cluster"]}


def _evidence(release: str, prompts: dict[int, dict[str, Any]]) -> tuple[list[Evidence], list[dict[str, Any]]]:
    """Evidence of the sampled prompts, and the prompts that were not sampled, both in order of prompt_id."""
    by_prompt: dict[int, list[dict[str, Any]]] = {}
    for row in _tables.read("generations", release).sort_by([("prompt_id", "ascending"), ("index", "ascending")]).to_pylist():
        by_prompt.setdefault(row["prompt_id"], []).append(row)
    matched: dict[int, dict[int, list[dict[str, Any]]]] = {}
    for row in _tables.read("matches", release).to_pylist():
        matched.setdefault(row["prompt_id"], {}).setdefault(row["generation_id"], []).append(row)
    sampled, unsampled = [], []
    for row in _tables.read("generations", release, side="sampling").to_pylist():
        prompt = prompts[row["prompt_id"]]
        if row["n_generations"]:
            sampled.append(Evidence(prompt, row, by_prompt[row["prompt_id"]], matched.get(row["prompt_id"], {})))
        else:
            unsampled.append(prompt)
    return sampled, unsampled


def _nearest_other(prompts: dict[int, dict[str, Any]]) -> dict[int, float]:
    """nearest_other_l2 of the prompts' own images, by image_id."""
    own = pa.array([r["image_id"] for r in prompts.values()], pa.int64())
    counted = _tables.read("duplicates", columns=["image_id", "nearest_other_l2"])
    return {r["image_id"]: r["nearest_other_l2"] for r in counted.filter(pc.is_in(counted["image_id"], own)).to_pylist()}


def _compared(release: str, size_px: int) -> _library.Library:
    """The pictures that can be compared, and which of them the release was trained on."""
    images = _tables.read("images", columns=["image_id", "key", "split", "shard", "position", "pixel_digest", "status"])
    counted = _tables.read("duplicates", columns=["image_id", "cluster_id", "representative_id", "is_leaked"])
    shown = images.filter(pa.array(_library.comparable(images))).join(counted, "image_id").sort_by("image_id").to_pylist()
    return _library.Library(shown, _sources.release(release).trained_on(r["key"] for r in shown if r["split"] == "member"), size_px)


if __name__ == "__main__":
    _stage.run(main)
