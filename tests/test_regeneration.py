"""A finding's picture is made again to the bit, or said how far off it is."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image

from tests.conftest import eidetic, rows_of


def a_finding(folder: Path) -> dict:
    return next(r for r in rows_of(folder, "findings", "sd-v1.5") if r["generation_id"] is not None)


def test_a_findings_picture_is_made_again_to_the_bit(copy_of_another: Path) -> None:
    finding = a_finding(copy_of_another)
    done = eidetic(copy_of_another, "regenerate", str(finding["finding_id"]))
    assert done.returncode == 0, done.stderr
    file, said = copy_of_another / "regenerated" / f"{finding['finding_id']}.png", done.stdout.splitlines()
    assert said[0].startswith(f"regenerated/{file.name}: sd-v1.5, by torch ") and said[1] == "identical to the bit with the picture on record"
    row = next(r for r in rows_of(copy_of_another, "generations", "sd-v1.5") if r["generation_id"] == finding["generation_id"])
    stored = pq.read_table(copy_of_another / "data" / "generations" / "sd-v1.5" / "pictures" / row["shard"]).column("png")[row["position"]].as_py()
    assert (np.asarray(Image.open(file)) == np.asarray(Image.open(io.BytesIO(stored)))).all()


def put_protocol(folder: Path, **values: str) -> None:
    """Change what is on record of how the release was sampled."""
    protocol = folder / "data" / "screening" / "sd-v1.5" / "protocol.parquet"
    table = pq.read_table(protocol)
    protocol.unlink()  # a link into DVC's cache
    for name, value in values.items():
        table = table.set_column(table.schema.get_field_index(name), name, [[value]])
    pq.write_table(table, protocol)


def test_it_is_made_as_recorded_whatever_params_yaml_says_today(copy_of_another: Path) -> None:
    params = yaml.safe_load((copy_of_another / "params.yaml").read_text())
    params["generations"] |= {"guidance_scale": 2.0, "batch_size": 3}
    (copy_of_another / "params.yaml").write_text(yaml.safe_dump(params))
    done = eidetic(copy_of_another, "regenerate", str(a_finding(copy_of_another)["finding_id"]))
    assert done.returncode == 0 and done.stdout.splitlines()[1] == "identical to the bit with the picture on record", done.stdout + done.stderr


def test_a_picture_that_comes_out_otherwise_is_said_to_be_how_far_off(copy_of_another: Path) -> None:
    recorded = json.loads(rows_of(copy_of_another, "screening", "sd-v1.5", "protocol")[0]["settings"])
    recorded["sampler"]["guidance_scale"] += 1
    put_protocol(copy_of_another, settings=json.dumps(recorded), stack="another")
    done = eidetic(copy_of_another, "regenerate", str(a_finding(copy_of_another)["finding_id"]))
    assert done.returncode == 0, done.stderr
    said = re.fullmatch(r"not identical with the picture on record, which was made by another: l2 ([0-9.e-]+), largest difference of a pixel ([0-9]+) of 255",
                        done.stdout.splitlines()[1])
    assert said and 0 < float(said[1]) < 1 and 0 < int(said[2]) <= 255


def test_what_is_no_finding_and_a_release_that_has_changed_are_named(copy_of_another: Path) -> None:
    done = eidetic(copy_of_another, "regenerate", "5")
    assert done.returncode == 1
    assert done.stderr == "eidetic: no finding 5 in the current audits of sd-v1.5; `eidetic sql \"from findings\"` lists them\n"
    put_protocol(copy_of_another, model_digest="0" * 64)
    done = eidetic(copy_of_another, "regenerate", str(a_finding(copy_of_another)["finding_id"]))
    assert done.returncode == 1 and done.stderr == "eidetic: release 'sd-v1.5' has changed since it was audited; its pictures cannot be made again\n"
