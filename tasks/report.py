"""The audit of a release for people and for CI. One row per finding in its pairs.

report.html is one file that opens from disk and asks the network for nothing; audit.json holds the same figures for CI;
audit_card.md is a section for a model card. Captions, addresses and names are hostile: all is escaped, nothing is linked.
"""

import base64
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks import _pictures, _settings, _sources, _tables
from tasks.measures import rates

SCHEMA_VERSION = 1
MAX_PAIRS = 500  # with pictures inline; the rest by SQL
THUMBNAIL_PX = 128
N_NEAREST_CONTROLS = 8
PACKAGES = ("torch", "diffusers", "transformers", "onnxruntime", "numpy", "pillow", "pyarrow")
TARGETS = {"duplicated": "most duplicated images", "singleton": "images seen once", "outlier": "unusual images", "custom": "custom prompts"}


def percent(share: float | None) -> str:
    """A share as people read it: two digits below 10 %."""
    if share is None:
        return "not measured"
    return f"{share:.1%}".replace("%", " %") if 0 < share < 0.1 else f"{share:.0%}".replace("%", " %")


def verdict(summary: list[dict[str, Any]], release: str) -> str:
    """The audit in one sentence: targets with their interval, controls, and the estimated share of false discoveries."""
    whole = {r["arm"]: r for r in summary if r["copies_bin"] in ("all", "unseen")}
    main = next((whole[arm] for arm in TARGETS if arm in whole), None)
    if main is None or main["arm"] == "custom":
        n = main["n_prompts"] if main else 0
        return f"{release}: no training set was given; of {n} prompts, the report lists those that return the same picture again and again"
    said = (f"{release}: {main['n_findings']} of the {main['n_prompts']} {TARGETS[main['arm']]} come back "
            f"({percent(main['extraction_rate'])}, 95 % interval {100 * main['low']:.0f}–{100 * main['high']:.0f} %)")
    if not main["n_controls"]:
        return said + "; no held-out images were given, so nothing bounds the false-discovery rate"
    said += f", {main['n_controls_flagged']} of {main['n_controls']} it never saw do"
    if main["fdr_estimate"] is None:
        return said
    return said + f"; estimated false-discovery rate {percent(main['fdr_estimate'])}, at most {percent(main['fdr_upper'])}"


def report(release: str, summary: list[dict[str, Any]], findings: list[dict[str, Any]], protocol: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """The content of audit.json: figures, the extracted findings, and what it takes to do it again. No time stamps."""
    whole = [r for r in summary if r["copies_bin"] == "all"]
    extracted = sorted((r for r in findings if r["is_extracted"]), key=lambda r: (r["l2"], r["finding_id"]))
    controls = [r for r in findings if r["arm"] == "held_out"]
    return {
        "schema_version": SCHEMA_VERSION, "release": release, "verdict": verdict(summary, release),
        "protocol_digest": protocol["protocol_digest"], "model_digest": protocol["model_digest"], "stack": protocol["stack"],
        "settings": json.loads(protocol["settings"]), "arms": summary, "findings": extracted,
        "controls": {"n": len(controls), "n_flagged": sum(r["is_flagged"] for r in controls),
                     "n_true_extractions": sum(r["is_extracted"] for r in controls)},
        "denominators": {"pictures_generated": sum(r["n_generations"] for r in whole), "prompts": len(findings), **facts.pop("denominators")},
        "n_evaluations": sum(r["n_evaluations"] for r in whole), "code_bytes": sum(r["code_bytes"] or 0 for r in extracted),
        "smallest_p": rates.smallest_p(min(len(controls), facts.pop("n_matched"))) if controls else None, **facts}


def near_controls(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The controls that came nearest to a match, by margin: what a false alarm would have looked like."""
    sampled = [r for r in findings if r["arm"] == "held_out" and r["margin"] is not None]
    return sorted(sampled, key=lambda r: (not r["is_flagged"], not r["is_extracted"], r["margin"]))[:N_NEAREST_CONTROLS]


def points(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each sampled prompt: where its medoid stands in l2 and margin, and whether it is a target, a control or a finding."""
    kind = lambda r: "found" if r["is_extracted"] else "control" if r["arm"] == "held_out" else "target"  # noqa: E731
    return [{"l2": r["l2"], "margin": min(r["margin"], 2.0), "kind": kind(r)}
            for r in findings if r["margin"] is not None]


def escaped_markdown(text: str) -> str:
    """Text that Markdown and HTML leave alone."""
    plain = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|" else c for c in plain)


def rendered(template: str, content: dict[str, Any], *, html: bool) -> str:
    """A template of this folder filled; undefined names are errors, HTML is escaped."""
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=html, undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "md": escaped_markdown, "unbroken": lambda text: text.replace(" %", "\u00a0%"), "grouped": "{:,}".format}
    return environment.get_template(template).render(content)


def main(release: str) -> None:
    """Write reports/<release>/report.html, audit.json and audit_card.md."""
    findings = [r | {"caption": _captions()[r["prompt_id"]]} for r in _tables.read("findings", release).to_pylist()]
    summary = _tables.read("summary", release).to_pylist()
    protocol = _tables.read("screening", release, side="protocol").to_pylist()[0]
    checks, canaries = _checks(release), _tables.read("duplicates", side="canaries").to_pylist()
    n_images = pc.sum(pc.equal(_tables.read("images").column("split"), "member")).as_py()
    size_px = _tables.read("inputs", side="resolution").column("size_px")[0].as_py()
    accepted = _sources.release(release)
    facts = {
        "denominators": {"training_images": n_images}, "n_matched": _settings.settings("findings")["n_matched_controls"],
        "checks": {"n": len(checks), "n_failed": sum(not r["is_passed"] for r in checks)}, "canaries": canaries, "compared_at_px": size_px,
        "model_bytes": sum(r["size_bytes"] for r in _tables.read("inputs", side=f"releases/{release}").to_pylist() if r["kind"] == "model"),
        "sampler": accepted.settings, "packages": {name: version(name) for name in PACKAGES},
        "descriptor": _tables.descriptors("image_embeddings")[0].column("descriptor")[0].as_py()}
    audit = report(release, summary, findings, protocol, facts)
    picture = _thumbnails(release)
    shown = [r | {"pictures": picture(r)} for r in audit["findings"][:MAX_PAIRS]]
    undecided = [r | {"pictures": picture(r)} for r in findings if r["match_type"] == "undecided"][:MAX_PAIRS]
    content = {"audit": audit, "pairs": shown, "undecided": undecided, "controls": [r | {"pictures": picture(r)} for r in near_controls(findings)],
               "points": points(findings), "checks": checks, "screened_out": sum(r["n_generations"] == 0 for r in findings)}
    folder = Path("reports") / release
    _tables.put_text(json.dumps(audit, indent=2, sort_keys=True, allow_nan=False) + "\n", folder / "audit.json")
    _tables.put_text(rendered("audit_card.md.jinja", content, html=False), folder / "audit_card.md")
    _tables.put_text(rendered("report.html.jinja", content, html=True), folder / "report.html")


def _captions() -> dict[int, str]:
    return {r["prompt_id"]: r["caption"] for r in _tables.read("prompts").select(["prompt_id", "caption"]).to_pylist()}


def _checks(release: str) -> list[dict[str, Any]]:
    """What every stage's checks said, of the shared stages and of this release."""
    paths = [*sorted(Path("data").glob("*/checks.parquet")), *sorted(Path("data").glob(f"*/{release}/checks.parquet"))]
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def _thumbnails(release: str) -> Callable[[dict[str, Any]], tuple[str, str]]:
    """A function from a finding to the data: addresses of its two pictures, generated and matched."""
    generations = {r["generation_id"]: r for r in _tables.read("generations", release).to_pylist()}
    images = {r["image_id"]: r for r in _tables.read("images").to_pylist()}
    generated, sources = _pictures.GenerationReader(release), _pictures.Reader()

    def inline(pixels: np.ndarray) -> str:
        return "data:image/webp;base64," + base64.b64encode(_pictures.webp(pixels, THUMBNAIL_PX)).decode()

    return lambda r: (inline(generated.pixels(generations[r["generation_id"]])), inline(sources.pixels(images[r["image_id"]])))


if __name__ == "__main__":
    _settings.run(main)
