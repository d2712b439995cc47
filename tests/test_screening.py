"""The screen's cut is blind to the arm, its sample of the dropped has a known chance."""

import numpy as np
import pyarrow as pa
import pytest

from tasks import screening

PROMPTS = pa.table({"prompt_id": pa.array(range(1, 2001), pa.int64()), "caption": [f"caption {i}" for i in range(2000)]})


def screened(norms: np.ndarray | None, **settings: float) -> pa.Table:
    chosen = {"keep_rate": 0.5, "dropped_rate": 0.1, "seed": 0} | settings
    return screening.screening(PROMPTS, norms, 8, "v1", chosen)


def test_keeps_the_largest_norms_and_exactly_the_share_asked_for(rng: np.random.Generator) -> None:
    norms = rng.random(2000)
    made = screened(norms)
    kept = np.array(made.column("stratum").to_pylist()) == "kept"
    assert kept.sum() == 1000 and norms[kept].min() > norms[~kept].max()
    assert np.array(made.column("is_sampled").to_pylist())[kept].all()


def test_samples_the_dropped_at_the_recorded_chance(rng: np.random.Generator) -> None:
    rows = screened(rng.random(2000)).to_pylist()
    dropped = [r for r in rows if r["stratum"] == "dropped"]
    assert {r["inclusion_probability"] for r in dropped} == {0.1}
    assert 70 <= sum(r["is_sampled"] for r in dropped) <= 130  # 100 +- 3 standard deviations


def test_without_a_guidance_pair_everything_is_sampled_and_the_norm_is_null() -> None:
    made = screened(None)
    assert set(made.column("stratum").to_pylist()) == {"unscreened"} and all(made.column("is_sampled").to_pylist())
    assert made.column("text_noise_norm").null_count == 2000


def test_the_norm_is_the_mean_over_seeds_that_depend_on_the_prompt_alone() -> None:
    few = PROMPTS.slice(0, 3)
    seen: dict[str, list[int]] = {}

    def norms_of(captions: list[str], seeds: list[list[int]]) -> np.ndarray:
        seen.update(zip(captions, seeds, strict=True))
        return np.array([[1.0, 3.0]] * len(captions))

    assert screening.mean_norms(few, norms_of, 2, 0) == pytest.approx([2, 2, 2])
    alone = dict(seen)
    seen.clear()
    screening.mean_norms(few.slice(1, 1), norms_of, 2, 0)
    assert seen["caption 1"] == alone["caption 1"]


def test_the_protocol_changes_with_every_threshold() -> None:
    one, two = (screening.protocol("v1", "m", "s", PROMPTS, {"findings": {"verbatim_l2": x}}).to_pylist()[0] for x in (0.15, 0.1))
    assert one["protocol_digest"] != two["protocol_digest"]
