"""What an audit costs is said before it starts: evaluations, counted as by hand."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from tasks import _costs, _settings, _sources, _tables, findings, inputs
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


def test_a_lower_rate_to_be_found_takes_the_first_round_that_can_show_it() -> None:
    assert [cost(min_rate=rate, budget=512).least for rate in (0.3, 0.1, 0.02)] == [6 * n * PER_PICTURE for n in (16, 64, 256)]
    assert cost(min_rate=0.02, budget=100).least == 6 * 100 * PER_PICTURE


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


def test_calibrating_controls_are_held_out_ones_and_a_custom_list_counts_its_lines(in_folder: Path) -> None:
    Path("mine.txt").write_text("a cat\na dog\n")
    made = _costs.cost(PROMPTS | {"n_calibrating": 2, "custom": "mine.txt"}, SCREENING, GENERATIONS, GUIDED, None)
    assert made.n_prompts == 12


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


def test_an_audit_has_cost_what_was_said_of_it_before(another: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(another)
    said = _costs.of_release("sd-v1.5")
    screened, sampled = _tables.read("screening", "sd-v1.5"), _tables.read("generations", "sd-v1.5", side="sampling")
    assert said.is_counted and said.n_prompts == screened.num_rows and said.screening == pc.sum(screened["n_evaluations"]).as_py()
    kept = screened["stratum"].to_pylist().count("kept")
    expected = kept + _settings.settings("screening")["dropped_rate"] * (screened.num_rows - kept)  # chance decides how many it is
    generated, n_sampled = pc.sum(sampled["n_evaluations"]).as_py(), pc.sum(screened["is_sampled"]).as_py()
    assert round(said.least / expected) <= generated / n_sampled <= round(said.most / expected)
    assert _costs.spent("sd-v1.5") == said.screening + generated


def test_settings_that_params_yaml_does_not_name_are_the_pipelines_own(another: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(another)
    named = _costs.of_release("sd-v1.5")
    monkeypatch.setattr("tasks._pipelines.own_settings", lambda _root: {"n_steps": 50, "guidance_scale": 1.0})
    own = _costs.of_release("sd-v1.5")
    assert (named.screening, own.screening) == (8 * named.n_prompts, 0), "the scale is the pipeline's"
    assert own.most == own.n_prompts * 520 * 2, "the 2 steps are the entry's"
