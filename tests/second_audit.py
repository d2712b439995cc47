"""An audit of the second picture set, and its controls again with other seeds.

    python -m tests.second_audit RELEASE SEED...    (in a folder with params.yaml; the code is that of the working tree)

    data/ -> the tables up to `summary`; flagged.json -> prompt_ids of the controls flagged, by seed, that of params.yaml the first

The stages one after the other in this process, as dvc would call them: that the programs start takes longer than they run.
"""

import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import yaml

from tasks import _settings, _tables

ARMS = ("duplicated", "outlier", "singleton", "paraphrased")
SHARED = ("inputs", "images", "image_embeddings", "duplicates", "prompts")
OF_SEED = ("generations", "generation_embeddings", "matches", "findings")


def set_params(block: str, **values: int) -> None:
    """Edit params.yaml."""
    params = _settings.all_settings()
    params[block] |= values
    _settings.PARAMS.write_text(yaml.safe_dump(params, sort_keys=False))


def run(stage: str, *release: str) -> None:
    """A stage, as `python -m tasks.<stage>` runs it."""
    importlib.import_module(f"tasks.{stage}").main(*release)


def flagged(release: str) -> list[int]:
    """The controls that are flagged, of those that judge."""
    return [r["prompt_id"] for r in _tables.read("findings", release).to_pylist() if r["is_flagged"] and not r["is_calibrating"]]


def again(release: str, seed: int) -> list[int]:
    """The controls that are flagged with this seed."""
    set_params("generations", seed=seed)
    for stage in OF_SEED:
        run(stage, release)
    return flagged(release)


def main() -> None:
    """Audit the release, then leave the controls alone in the prompts and try every seed, in a folder beside this one."""
    release, seeds = sys.argv[1], sys.argv[2:]
    for stage in SHARED:
        run(stage)
    for stage in ("screening", *OF_SEED, "summary"):
        run(stage, release)
    here, found = Path.cwd(), {str(_settings.settings("generations")["seed"]): flagged(release)}
    os.chdir(shutil.copytree(here, here.with_name(f"{here.name}-seeds")))
    set_params("prompts", **{f"n_{arm}": 0 for arm in ARMS})
    run("prompts")
    run("screening", release)
    found |= {seed: again(release, int(seed)) for seed in seeds}
    (here / "flagged.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
