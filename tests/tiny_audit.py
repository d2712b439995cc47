"""Two tiny audits in all their tables, a few rows each: what tests of the later stages read. No pictures, no descriptors."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from tasks import (
    _checks,
    _sources,
    _tables,
    blocklist,
    duplicates,
    findings,
    generations,
    images,
    inputs,
    keep_list,
    matches,
    prompts,
    reviews,
    screening,
    summary,
    warehouse,
)

V1, V2 = "v1", "sd-v1.5"
SETTINGS = {"findings": {"verbatim_l2": 0.15, "verbatim_margin": 0.7, "near_copy_margin": 0.85},
            "sampler": {"guidance_scale": 3.0}}
# image_id: split, cluster_id; 1, 2 and 3 are copies
IMAGES = {1: ("member", 1), 2: ("member", 1), 3: ("member", 1), 4: ("member", 4), 5: ("member", 5), 8: ("held_out", 8),
          9: ("held_out", 9)}
# prompt_id: image_id, arm, copies_bin, is_sampled
PROMPTS = {11: (1, "duplicated", "2-3", True), 14: (4, "singleton", "1", True), 15: (5, "outlier", "1", False),
           18: (8, "held_out", None, True), 19: (9, "held_out", None, False)}
N_GENERATIONS = 2


def row(schema: pa.Schema, **values: Any) -> dict[str, Any]:
    """A row of a schema: null or an empty value wherever nothing is said."""
    empty = {pa.string(): "", pa.bool_(): False, pa.float32(): 0.0, pa.float64(): 0.0}
    return {f.name: values.get(f.name, None if f.nullable else empty.get(f.type, 0)) for f in schema}


def put(rows: list[dict[str, Any]], schema: pa.Schema, noun: str, release: str | None = None, side: str | None = None) -> None:
    """Write a table without judging it."""
    _tables.put(_tables.table(rows, schema), _tables.path(noun, release, side))


def put_checks(noun: str, release: str | None, table_names: list[str]) -> None:
    """What Great Expectations would have said of these tables."""
    passed = [row(_checks.SCHEMA, table_name=name, release=release, is_passed=True) for name in table_names]
    put(passed, _checks.SCHEMA, noun, release, "checks")


def put_shared(releases: list[str]) -> None:
    """The tables that all releases share."""
    for source in ("members", "held_out"):
        file = row(inputs.SCHEMA, source=source, path="a.parquet", sha256="0" * 64, status="ok")
        put([file], inputs.SCHEMA, "inputs", side=source)
    unmentioned = row(images.SCHEMA, image_id=99, key="99.png", split="member", status="error")
    good = [row(images.SCHEMA, image_id=i, key=f"{i}.png", split=s, status="ok") for i, (s, _) in IMAGES.items()]
    put([*good, unmentioned], images.SCHEMA, "images")
    size = {c: sum(c == other for _, other in IMAGES.values()) for _, c in IMAGES.values()}
    put([row(duplicates.SCHEMA, image_id=i, split=s, cluster_id=c, cluster_size=size[c], n_copies=size[c] * (s == "member"))
         for i, (s, c) in IMAGES.items()], duplicates.SCHEMA, "duplicates")
    put([row(duplicates.PAIRS, image_id_a=a, image_id_b=b, method="descriptor", is_copy=True) for a, b in ((1, 2), (1, 3))],
        duplicates.PAIRS, "duplicates", side="pairs")
    canary = row(duplicates.CANARIES, transform="half_size", n_planted=4, n_found=4, recall=1.0)
    put([canary], duplicates.CANARIES, "duplicates", side="canaries")
    put([row(duplicates.THRESHOLDS, name="tile_difference", value=0.04)], duplicates.THRESHOLDS, "duplicates", side="thresholds")
    put([row(prompts.SCHEMA, prompt_id=p, caption=f"picture {i}", image_id=i, cluster_id=i, arm=arm, copies_bin=copies)
         for p, (i, arm, copies, _) in PROMPTS.items()], prompts.SCHEMA, "prompts")
    put([], reviews.SCHEMA, "reviews")
    for release in releases:
        put_model(release)
    for noun in warehouse.SHARED_STAGES:
        put_checks(noun, None, [f"inputs.releases/{r}" for r in releases] if noun == "inputs" else [noun])


def put_model(release: str, sha256: str = "1" * 64, **values: Any) -> None:
    """What `inputs` says of a release's files."""
    file = row(inputs.SCHEMA, **{"source": release, "kind": "model", "path": "unet", "sha256": sha256, "status": "ok", **values})
    put([file], inputs.SCHEMA, "inputs", side=f"releases/{release}")


def put_protocol(release: str, settings: dict[str, Any]) -> None:
    """What an audit of the prompts that are there was bound to."""
    asked = _tables.read("prompts").select(["prompt_id", "caption"])
    bound = screening.protocol(release, _sources.release(release).digest, "stack", asked, settings)
    _tables.put(bound, _tables.path("screening", release, "protocol"))


def finding_row(release: str, prompt_id: int, extracted: bool) -> dict[str, Any]:
    """The verdict on a prompt: its own image came back, or nothing did."""
    image_id, arm, _, is_sampled = PROMPTS[prompt_id]
    said: dict[str, Any] = {"finding_id": prompt_id * 10 + len(release), "release": release, "prompt_id": prompt_id, "arm": arm, "is_compared": True}
    said |= {"match_type": "none", "n_evaluations": 8}
    if is_sampled:
        said |= {"generation_id": prompt_id * 100, "image_id": image_id, "cluster_id": image_id, "split": IMAGES[image_id][0],
                 "seed": 7, "n_generations": 2, "n_judged": 2, "n_evaluations": 56, "hit_rate": 0.0, "hit_rate_low": 0.0,
                 "hit_rate_high": 0.8, "l2": 0.2, "tiled_l2": 0.3, "margin": 0.95}
    if extracted:
        said |= {"match_type": "verbatim", "is_extracted": True, "l2": 0.05, "margin": 0.3, "n_hits": 2, "hit_rate": 1.0,
                 "hit_rate_high": 1.0, "thumbnail_px": 16, "code_bytes": 100, "eidetic_k": 3, "eidetic_k_10": 3, "eidetic_k_15": 3, "is_own_image": True}
    return row(findings.SCHEMA, **said)


def put_release(release: str, extracted: set[int], settings: dict[str, Any] = SETTINGS) -> None:
    """The tables of an audit in which these prompts came back."""
    put_protocol(release, settings)
    sampled = [p for p, (*_, is_sampled) in PROMPTS.items() if is_sampled]
    put([row(screening.SCHEMA, prompt_id=p, release=release, stratum="kept" if p in sampled else "dropped", n_evaluations=8,
             is_sampled=p in sampled) for p in PROMPTS], screening.SCHEMA, "screening", release)
    made = [(p, i) for p in sampled for i in range(N_GENERATIONS)]
    put([row(generations.SCHEMA, generation_id=p * 100 + i, release=release, prompt_id=p, index=i, seed=7 + i, n_evaluations=24,
             shard="pictures_00000.parquet", position=i, status="ok") for p, i in made], generations.SCHEMA, "generations", release)
    put([row(generations.SAMPLING, prompt_id=p, release=release, n_generations=2 * (p in sampled),
             n_evaluations=48 * (p in sampled), stop_reason="futile" if p in sampled else "not_sampled") for p in PROMPTS],
        generations.SAMPLING, "generations", release, "sampling")
    put([row(matches.SCHEMA, generation_id=p * 100 + i, release=release, prompt_id=p, split=s, image_id=image, cluster_id=image)
         for p, i in made for s, image in (("member", 1), ("held_out", 8))], matches.SCHEMA, "matches", release)
    verdicts = [finding_row(release, p, p in extracted) for p in PROMPTS]
    put(verdicts, findings.SCHEMA, "findings", release)
    framed = [r | {"copies_bin": PROMPTS[r["prompt_id"]][2] or "unseen", "own_cluster": PROMPTS[r["prompt_id"]][0], "stratum": "kept"} for r in verdicts]
    bound = {k: _tables.read("screening", release, side="protocol").column(k)[0].as_py() for k in ("release", "protocol_digest")}
    told = summary.summary(framed, {("duplicated", "2-3"): 1}, {"member": 4, "held_out": 2}, bound, 0.95)
    _tables.put(told, _tables.path("summary", release))
    put_remedies(release, verdicts)
    for noun in warehouse.RELEASE_STAGES:
        put_checks(noun, release, [noun])


def put_remedies(release: str, verdicts: list[dict[str, Any]], trained: pa.Table | None = None) -> None:
    """A blocklist with an entry for each finding, and the keep list of the training set: of the rows trained, or of IMAGES."""
    found = [r for r in verdicts if r["is_extracted"]]
    put([row(blocklist.SCHEMA, entry_id=r["finding_id"], release=release, cluster_id=r["cluster_id"], kind="training_image", image_id=r["image_id"],
             threshold=0.8) for r in found], blocklist.SCHEMA, "blocklist", release)
    put([row(blocklist.FILTER_RATES, kind=kind, transform="none", release=release, is_promised=True, n_prompts=1, n_pictures=4, n_blocked=n,
             blocked_rate=n / 4, high=1.0) for kind, n in (("returned", 2 * len(found)), ("ordinary", 0))], blocklist.FILTER_RATES, "blocklist", release,
        "filter_rates")
    own = [(i, c) for i, (s, c) in IMAGES.items() if s == "member"]
    members = trained if trained is not None else pa.table({"image_id": pa.array([i for i, _ in own], pa.int64()), "key": [f"{i}.png" for i, _ in own],
                                   "cluster_id": pa.array([c for _, c in own], pa.int64())})
    made = keep_list.keep_list(members, {r["cluster_id"] for r in found}, release, 2)
    _tables.put(made, _tables.path("keep_list", release))
    told = keep_list.policies(made, keep_list.rate_by_copies(_tables.read("summary", release).to_pylist(), 0.95), release)
    _tables.put(told, _tables.path("keep_list", release, "policies"))


def put_params(releases: dict[str, dict[str, Any]]) -> None:
    """A params.yaml with these releases."""
    Path("params.yaml").write_text(yaml.safe_dump({"releases": releases, "prompts": {"seed": 0}}, sort_keys=False))


def put_project() -> None:
    """Two audited releases: v1 returns prompt 11's image, sd-v1.5 returns none. The warehouse is not built."""
    put_params({V1: {"model": "a"}, V2: {"model": "b"}})
    put_shared([V1, V2])
    put_release(V1, {11})
    put_release(V2, set())
