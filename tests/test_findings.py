"""Verdicts rest on the medoid and the nearest picture; controls bound them; dropped prompts are not flagged."""

from typing import Any

import numpy as np
import pytest

from tasks import findings

SETTINGS: dict[str, Any] = {"verbatim_l2": 0.15, "verbatim_margin": 0.7, "near_copy_margin": 0.85, "near_copy_similarity": 0.8, "clique_size": 10,
                            "n_always_drawn": 16, "n_always_kept": 16, "n_matched_controls": 40, "edge_l2": 0.1, "template_share": 0.25}


def match(image_id: int = 1, *, l2: float = 0.05, margin: float | None = 0.3, similarity: float = 0.9, split: str = "member",
          own: bool = True) -> dict[str, Any]:
    return {"image_id": image_id, "cluster_id": image_id, "split": split, "l2": l2, "tiled_l2": l2, "adaptive_l2": 0.5, "margin": margin,
            "similarity": similarity, "is_own_cluster": own}


def evidence(matches: list[dict[str, Any]], *, prompt_id: int = 5, arm: str = "duplicated", clique: int = 16, n: int = 24,
             calibrating: bool = False) -> findings.Evidence:
    generations = [{"generation_id": 100 * prompt_id + i, "index": i, "is_fresh": i >= 16, "seed": i} for i in range(n)]
    return findings.Evidence(
        {"prompt_id": prompt_id, "arm": arm, "image_id": 1, "cluster_id": 1, "caption": "a cat", "is_calibrating": calibrating,
         "caption_rank": 0},
        {"clique_size": clique, "medoid_generation_id": generations[0]["generation_id"], "n_generations": n, "n_evaluations": 24 * n},
        generations, {g["generation_id"]: matches for g in generations})


@pytest.mark.parametrize(
    ("row", "clique", "expected"),
    [
        (match(), 16, "verbatim"),
        (match(l2=0.2, margin=0.8), 16, "near_copy"),
        (match(l2=0.1, margin=0.9), 16, "undecided"),
        (match(l2=0.1, margin=0.75, similarity=0.5), 3, "none"),
        (match(l2=0.3, margin=0.5, similarity=0.1), 3, "none"),
    ],
)
def test_match_types(row: dict[str, Any], clique: int, expected: str) -> None:
    assert findings.finding(evidence([row], clique=clique), 0.8, SETTINGS)["match_type"] == expected


def test_the_extracted_image_need_not_be_the_prompts_own() -> None:
    row = findings.finding(evidence([match(7, own=False), match(1, l2=0.4, margin=8)]), 0.8, SETTINGS)
    assert (row["match_type"], row["image_id"], row["is_own_image"]) == ("verbatim", 7, False)


def test_hits_are_judged_on_what_every_prompt_gets_and_the_fresh_pictures() -> None:
    e = evidence([match()], n=40)
    for g in e.generations:
        g["is_fresh"] = g["index"] >= 32
    for i in range(16, 32):
        e.matches[100 * 5 + i] = [match(l2=0.4, margin=2)]
    row = findings.finding(e, 0.8, SETTINGS)
    assert (row["n_judged"], row["n_hits"], row["n_generations"]) == (24, 24, 40)
    assert row["hit_rate_low"] < row["hit_rate"] == 1 == row["hit_rate_high"]


def test_hits_of_a_prompt_that_is_not_flagged_are_judged_on_what_is_kept_of_it_less_the_medoid() -> None:
    settings = SETTINGS | {"n_always_drawn": 40, "n_always_kept": 16}
    for clique, n_judged in ((9, 16), (10, 40)):
        e = evidence([match()], n=40, clique=clique)
        for g in e.generations:
            g["is_fresh"] = False
        e.sampling["medoid_generation_id"] = 100 * 5 + 30
        assert findings.hits(e, 1, settings) == (n_judged, n_judged)


def test_a_target_that_beats_all_controls_has_the_smallest_p_they_allow() -> None:
    controls = [evidence([match(i, margin=2.0)], prompt_id=i, arm="held_out") for i in range(10, 50)]
    for c in controls:
        c.prompt["cluster_id"] = c.prompt["image_id"] = c.prompt["prompt_id"]
    rows = findings.findings([evidence([match(margin=0.2)]), *controls], [], {}, release="v1",
                             screen_evaluations=dict.fromkeys(range(60), 8), settings=SETTINGS)
    target = next(r for r in rows if r["arm"] == "duplicated")
    assert target["p_value"] == pytest.approx(1 / 41) and target["q_value"] == pytest.approx(1 / 41)
    assert all(r["p_value"] is None for r in rows if r["arm"] == "held_out")


def test_of_a_cluster_that_leaked_the_training_image_is_named_though_its_held_out_copy_is_nearer() -> None:
    copies = [match(8, l2=0.04, split="held_out") | {"cluster_id": 5}, match(5, l2=0.05), match(9, l2=0.06)]
    kind, found = findings.verdict(copies, {"clique_size": 10}, 0.5, SETTINGS)
    assert kind == "verbatim" and found is not None and (found["image_id"], found["split"]) == (5, "member")
    far = [match(8, l2=0.14, split="held_out") | {"cluster_id": 5}, match(5, l2=0.16)]
    _, found = findings.verdict(far, {"clique_size": 10}, 0.5, SETTINGS)
    assert found is not None and found["image_id"] == 8, "only a copy that is confirmed itself is named"


def test_a_prompt_that_the_screen_dropped_is_not_flagged_and_its_p_is_one() -> None:
    dropped = evidence([]).prompt
    controls = [evidence([match(i, margin=2.0)], prompt_id=i, arm="held_out") for i in range(10, 20)]
    rows = findings.findings(controls, [dropped], {}, release="v1", screen_evaluations=dict.fromkeys(range(60), 8), settings=SETTINGS)
    row = next(r for r in rows if r["prompt_id"] == dropped["prompt_id"])
    assert (row["match_type"], row["n_generations"], row["p_value"], row["hit_rate"], row["n_evaluations"]) == ("none", 0, 1, None, 8)


def test_near_copies_must_be_more_alike_than_any_but_one_in_a_hundred_calibrating_controls() -> None:
    controls = [evidence([match(similarity=s)], prompt_id=i, arm="held_out", calibrating=True) for i, s in enumerate(np.linspace(0, 0.6, 50))]
    assert findings.near_copy_similarity(controls) == pytest.approx(0.6)
    judging = [evidence([match(similarity=0.99)], prompt_id=99, arm="held_out")]
    assert findings.near_copy_similarity(controls + judging) == pytest.approx(0.6), "controls that judge set no threshold"
    assert findings.near_copy_similarity([evidence([match()])]) > 1


def test_controls_that_set_thresholds_lend_no_p_value() -> None:
    calibrating = [evidence([match(i, margin=0.01)], prompt_id=i, arm="held_out", calibrating=True) for i in range(60, 80)]
    judging = [evidence([match(i, margin=2.0)], prompt_id=i, arm="held_out") for i in range(10, 50)]
    for c in calibrating + judging:
        c.prompt["cluster_id"] = c.prompt["image_id"] = c.prompt["prompt_id"]
    rows = findings.findings([evidence([match(margin=0.2)]), *calibrating, *judging], [], {}, release="v1",
                             screen_evaluations=dict.fromkeys(range(90), 8), settings=SETTINGS)
    assert next(r for r in rows if r["arm"] == "duplicated")["p_value"] == pytest.approx(1 / 41)


def test_a_further_caption_has_no_p_value_lends_none_and_sets_no_threshold() -> None:
    controls = [evidence([match(i, margin=2.0)], prompt_id=i, arm="held_out") for i in range(10, 50)]
    again = [evidence([match(i, margin=0.01)], prompt_id=i + 50, arm="held_out") for i in range(10, 30)]
    for c in controls + again:
        c.prompt["cluster_id"] = c.prompt["image_id"] = c.prompt["prompt_id"] % 50
    targets = [evidence([match(margin=0.2)]), evidence([match(margin=0.1)], prompt_id=6)]
    alike = [evidence([match(similarity=0.99)], prompt_id=i, arm="held_out", calibrating=True) for i in range(9)]
    for e in [targets[1], *again, *alike]:
        e.prompt["caption_rank"] = 1
    rows = findings.findings([*targets, *controls, *again], [], {}, release="v1", screen_evaluations=dict.fromkeys(range(100), 8), settings=SETTINGS)
    first, further = (next(r for r in rows if r["prompt_id"] == i) for i in (5, 6))
    assert first["p_value"] == first["q_value"] == pytest.approx(1 / 41) and further["p_value"] is further["q_value"] is None
    assert further["match_type"] == "verbatim", "it is judged as a pair like the others"
    assert findings.near_copy_similarity(alike) > 1


def test_a_sharper_generation_is_worth_a_larger_thumbnail(rng: np.random.Generator) -> None:
    training = np.clip(np.kron(rng.random((8, 8, 3)), np.ones((4, 4, 1))), 0, 1).astype(np.float32)
    near = np.array([0.0, 0.04, 0.09, 0.2])
    blurred = np.clip(training * 0.5 + 0.25, 0, 1)
    sharp, dull = (findings.described({"caption": "a cat"}, g, training, near, (1000, 10)) for g in (training, blurred))
    assert sharp["thumbnail_px"] == 32 and dull["thumbnail_px"] < 32 and sharp["code_bytes"] > dull["code_bytes"]
    assert (sharp["eidetic_k"], sharp["eidetic_k_10"], sharp["eidetic_k_15"]) == (2, 3, 3)
    assert sharp["search_bits"] == pytest.approx(np.log2(10_000) + 40)
