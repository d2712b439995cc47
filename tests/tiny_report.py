"""A report's findings made by hand, a few or thousands, and the page of them: what its tests and its bench look at. No audit is run."""

import base64
import json
from typing import Any

import numpy as np

from tasks import _pages, _pairs, _pictures, report

SETTINGS = {"findings": {"verbatim_l2": 0.15, "verbatim_margin": 0.7, "n_matched_controls": 40, "near_copy_similarity": 0.6}, "sampler": {"n_steps": 12}}
NOT_COMPARED = {"n_undecided": 1, **dict.fromkeys(["extraction_rate", "low", "high", "estimated_total", "estimated_total_low", "estimated_total_high"])}
PROTOCOL = "p" * 16


def arm(name: str = "duplicated", *, k: int = 34, controls: int = 64, flagged: int = 0, **other: Any) -> dict[str, Any]:
    has_list = bool(controls) and bool(k) and name != "held_out"
    said = {"arm": name, "copies_bin": "all", "n_prompts": 64, "n_sampled": 64, "n_findings": k, "n_images": k, "n_clusters": 74,
            "is_census": False, "extraction_rate": k / 64, "low": 0.4, "high": 0.66, "n_controls": controls,
            "n_controls_flagged": flagged, "fdr_estimate": 0.029 if has_list else None, "fdr_upper": 0.0861 if has_list else None,
            "n_controls_needed": 90 if has_list else None, "n_generations": 100, "n_evaluations": 2400,
            "n_undecided": 0, "n_further_prompts": 0, "n_further_findings": 0, "n_further_flagged": 0,
            "estimated_total": 40.0, "estimated_total_low": 34, "estimated_total_high": 50}
    return said | other


def finding(caption: str = "a cat", number: int = 1, **other: Any) -> dict[str, Any]:
    said = {"finding_id": number, "prompt_id": number, "cluster_id": number, "generation_id": 5, "image_id": 6, "own_image": 6,
            "caption": caption, "caption_key": caption, "caption_copies": 20, "caption_rank": 0, "is_compared": True,
            "arm": "duplicated", "is_calibrating": False, "split": "member", "seed": 7,
            "match_type": "verbatim", "l2_band": "0.10", "l2": 0.08, "margin": 0.4, "similarity": 0.7,
            "n_copies": 20, "n_hits": 24, "n_judged": 24, "hit_rate": 1.0, "hit_rate_low": 0.8,
            "hit_rate_high": 1.0, "n_generations": 24, "n_evaluations": 584, "clique_size": 12, "p_value": 0.02, "q_value": 0.03,
            "thumbnail_px": 16, "code_bytes": 90, "search_bits": 80.0, "eidetic_k": 3, "eidetic_k_10": 4, "eidetic_k_15": 5,
            "is_extracted": True, "is_flagged": False, "is_own_image": True}
    place = {"image_key": caption, "image_sha256": "0" * 64, "image_shard": caption, "image_position": 3, "image_url": caption}
    return said | place | other


def control(number: int, **other: Any) -> dict[str, Any]:
    unknown = ["l2_band", "p_value", "q_value", "thumbnail_px", "code_bytes", "eidetic_k", "search_bits", "n_copies"]
    said = {"arm": "held_out", "split": "held_out", "match_type": "none", "is_extracted": False, "l2": 0.2, "margin": 0.98}
    return finding(f"control {number}", number) | dict.fromkeys(unknown) | said | other


def unsampled(number: int, **other: Any) -> dict[str, Any]:
    unknown = ["l2", "margin", "similarity", "hit_rate", "generation_id", "image_id", "cluster_id", "split", "seed"]
    return control(number, n_generations=0, n_evaluations=8) | dict.fromkeys(unknown) | other


def clique_alone(**other: Any) -> dict[str, Any]:
    unknown = ["split", "image_id", "image_key", "l2", "margin", "similarity", "l2_band", "n_copies", "caption_key", "caption_copies"]
    return finding(arm="custom", match_type="undecided", is_extracted=False) | dict.fromkeys(unknown) | other


def compared(**other: Any) -> dict[str, Any]:
    """The row of comparisons of all targets."""
    return {"release": "v1", "kind": "previous", "arm": "all", "against": "v0", "outcome": "worse", "reason": None, "n_clusters": 64, "n_unpaired": 2,
            "n_both": 20, "n_only_later": 14, "n_only_earlier": 1, "difference": 0.2, "low": 0.08, "high": 0.33, "bootstrap_low": 0.1,
            "bootstrap_high": 0.3, "p_value": 0.001} | other


def change(prompt_id: int, outcome: str = "new", **other: Any) -> dict[str, Any]:
    """What became of a prompt since the other release."""
    return {"release": "v1", "kind": "previous", "prompt_id": prompt_id, "against": "v0", "outcome": outcome, "was_drawn": True, "is_new_image": True,
            "earlier_l2": 0.3, "earlier_margin": 0.9} | other


def audited_tables(findings: list[dict[str, Any]], summary: list[dict[str, Any]], **other: Any) -> dict[str, Any]:
    facts = {"n_training_images": 100, "checks": [], "canaries": [], "compared_at_px": 32, "model_bytes": 10, "sampler": {},
             "packages": {"torch": "2"}, "descriptor": "sscd", "comparisons": [], "reviews": None,
             "strata": {r["prompt_id"]: "kept" if r["n_generations"] else "dropped" for r in findings}} | other
    protocol = {"protocol_digest": PROTOCOL, "model_digest": "m" * 64, "stack": "cpu", "settings": json.dumps(SETTINGS)}
    return report.report("v1", summary, findings, protocol, facts)


class Pictures:
    """One picture for all: of one colour, or of noise as large as the page's budget allows."""

    def __init__(self, max_bytes: int, noise: np.random.Generator | None = None) -> None:
        pixels = np.full((4, 4, 3), 120, np.uint8) if noise is None else noise.integers(0, 256, (128, 128, 3), dtype=np.uint8)
        self.one = {"address": "data:image/webp;base64," + base64.b64encode(_pictures.thumbnail(pixels, 128, max_bytes)).decode(), "is_small": True}

    def pair(self, r: dict[str, Any]) -> dict[str, Any]:
        return r | {"generated": self.one} | dict.fromkeys(["original", "difference"], self.one if r["image_id"] else None)

    def decoy(self, r: dict[str, Any]) -> dict[str, Any]:
        return r | dict.fromkeys(["generated", "original"], self.one)


REMEDIES: dict[str, Any] = {"n_entries": 0, "filter": [], "policies": [], "covered": []}  # of nothing extracted, nothing to keep


def filled(findings: list[dict[str, Any]], summary: list[dict[str, Any]], *, changes: list[dict[str, Any]] | None = None,
           noise: np.random.Generator | None = None, remedies: dict[str, Any] = REMEDIES, **other: Any) -> dict[str, Any]:
    """What the templates are filled with; other = further facts, as comparisons or reviews."""
    screening = {r["prompt_id"]: {"text_noise_norm": float(r["prompt_id"]), "screen_evaluations": 8} for r in findings}
    return report.content(audited_tables(findings, summary, **other), findings, lambda n: Pictures(_pairs.max_bytes(n), noise),
                          {"checks": [], "changes": changes or [], "remedies": remedies, "screening": screening, "near_copy": 0.6})


def page_of(findings: list[dict[str, Any]], summary: list[dict[str, Any]], **other: Any) -> str:
    return _pages.rendered("report.html.jinja", filled(findings, summary, **other), html=True)
