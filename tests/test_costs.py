"""What an audit costs is said before it starts: evaluations, counted as by hand."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from tasks import _costs, _sources, _tables, findings, inputs
from tasks._settings import UserError
from tests.tiny_audit import put, put_model, row

PROMPTS = {"seed": 0, "n_duplicated": 6, "n_held_out": 4, "custom": None}
SCREENING = {"n_seeds": 4, "keep_rate": 0.5, "dropped_rate": 0.2}
GENERATIONS = {"first": 8, "budget": 64, "n_fresh": 8, "min_rate": 0.3, "miss_probability": 0.05, "exhaustive": False,
               **dict.fromkeys(_sources.SAMPLER)}
GUIDED = {"n_steps": 10, "guidance_scale": 7.5, "is_screened": True}
PER_PICTURE = 20  # ten steps of two evaluations


def cost(n_prompts: int | None = 10, sampler: dict[str, Any] | None = None, **generations: Any) -> _costs.Cost:
    return _costs.cost(PROMPTS, SCREENING, GENERATIONS | generations, GUIDED | (sampler or {}), n_prompts)


def test_an_audit_costs_its_screen_and_between_the_first_round_that_gives_up_and_the_budget() -> None:
    n_sampled = 5 + 0.2 * 5  # half are kept, a fifth of the others is sampled
    assert cost() == _costs.Cost(10, True, screening=10 * 4 * 2, least=round(n_sampled * 16 * PER_PICTURE), most=round(n_sampled * 72 * PER_PICTURE),
                                 published=500_000)


def test_the_published_attack_as_published_screens_nothing_and_stops_nowhere() -> None:
    made = cost(exhaustive=True)
    assert (made.screening, made.least, made.most) == (0, 10 * 64 * PER_PICTURE, 10 * 64 * PER_PICTURE)


def test_without_guidance_a_step_is_one_evaluation_and_nothing_is_screened() -> None:
    made = cost(sampler={"guidance_scale": 1.0})
    assert (made.screening, made.most) == (0, 10 * 72 * 10)
    assert cost(sampler={"is_screened": False}).most == 10 * 72 * PER_PICTURE


def test_before_the_prompts_are_chosen_the_settings_bound_their_number() -> None:
    made = cost(None)
    assert (made.n_prompts, made.is_counted) == (10, False)


def test_a_release_is_counted_with_its_own_sampler_and_the_prompts_there_are(in_folder: Path) -> None:
    (in_folder / "model" / "unet").mkdir(parents=True)
    (in_folder / "model" / "unet" / "config.json").write_text("{}")
    Path("params.yaml").write_text(yaml.safe_dump({"prompts": PROMPTS, "screening": SCREENING, "generations": GENERATIONS}))
    put_model("v1", root="model", settings='{"n_steps": 10, "guidance_scale": 7.5}')
    assert _costs.of_release("v1") == cost(None)
    _tables.put(pa.table({"prompt_id": [1, 2, 3]}), _tables.path("prompts"))
    assert _costs.of_release("v1") == cost(3)


def test_a_refused_release_has_no_cost(in_folder: Path) -> None:
    Path("params.yaml").write_text("{}")
    put([row(inputs.SCHEMA, status="refused", reason="x.bin is pickled")], inputs.SCHEMA, "inputs", side="releases/v1")
    with pytest.raises(UserError, match="'v1' is refused: x.bin is pickled"):
        _costs.of_release("v1")


def test_what_the_last_audit_took_is_the_sum_over_its_findings(in_folder: Path) -> None:
    assert _costs.spent("v1") is None
    put([row(findings.SCHEMA, finding_id=i, n_evaluations=n) for i, n in enumerate((8, 56))], findings.SCHEMA, "findings", "v1")
    assert _costs.spent("v1") == 64
