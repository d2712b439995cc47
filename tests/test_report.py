"""One sentence, one page, one file for CI; hostile captions do nothing; no request leaves the page."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tasks import report

HOSTILE = "</script><img src=x onerror=alert(1)> [click](javascript:alert(1)) | `x`"


def arm(name: str = "duplicated", *, n: int = 64, k: int = 34, controls: int = 64, fdr: float | None = 0.03) -> dict[str, Any]:
    return {"arm": name, "copies_bin": "all", "n_prompts": n, "n_findings": k, "extraction_rate": k / n, "low": 0.4, "high": 0.66, "n_controls": controls,
            "n_controls_flagged": 0, "fdr_estimate": fdr, "fdr_upper": None if fdr is None else 0.09, "n_generations": 100, "n_evaluations": 2400,
            "n_sampled": n, "n_images": k, "is_census": False, "estimated_total": 40.0, "estimated_total_low": 34, "estimated_total_high": 50,
            "n_controls_needed": 90, "n_clusters": 74}


def finding(caption: str = "a cat", **other: Any) -> dict[str, Any]:
    row = {"finding_id": 1, "prompt_id": 1, "caption": caption, "arm": "duplicated", "match_type": "verbatim", "l2_band": "0.10", "l2": 0.08, "margin": 0.4,
           "similarity": 0.7, "n_copies": 20, "hit_rate": 1.0, "hit_rate_low": 0.8, "hit_rate_high": 1.0, "n_hits": 24, "n_judged": 24, "p_value": 0.02,
           "q_value": 0.03, "thumbnail_px": 16, "code_bytes": 90, "seed": 7, "is_extracted": True, "is_flagged": False, "is_own_image": True,
           "split": "member", "n_generations": 24}
    return row | other


def content(findings: list[dict[str, Any]], summary: list[dict[str, Any]]) -> dict[str, Any]:
    facts = {"denominators": {"training_images": 100}, "n_matched": 40, "checks": {"n": 1, "n_failed": 0}, "canaries": [], "compared_at_px": 32,
             "model_bytes": 10, "sampler": {}, "packages": {"torch": "2"}, "descriptor": "sscd"}
    protocol = {"protocol_digest": "p" * 16, "model_digest": "m" * 64, "stack": "cpu", "settings": "{}"}
    audit = report.report("v1", summary, findings, protocol, facts)
    pairs = [r | {"pictures": ("data:image/webp;base64,AA", "data:image/webp;base64,AA")} for r in audit["findings"]]
    return {"audit": audit, "pairs": pairs, "undecided": [], "controls": [], "points": report.points(findings), "checks": [], "screened_out": 0}


def test_the_verdict_states_the_interval_the_controls_and_the_false_share() -> None:
    assert report.verdict([arm()], "v1") == (
        "v1: 34 of the 64 most duplicated images come back (53 %, 95 % interval 40–66 %), 0 of 64 it never saw do; "
        "estimated false-discovery rate 3.0 %, at most 9.0 %")


def test_the_verdict_says_what_it_cannot_claim() -> None:
    assert "no held-out images were given" in report.verdict([arm(controls=0, fdr=None)], "v1")
    assert report.verdict([arm(k=0, fdr=None)], "v1").endswith("0 of 64 it never saw do")
    assert "no training set was given" in report.verdict([arm("custom", controls=0, fdr=None)], "v1")


def test_audit_json_counts_what_the_tables_say_and_has_no_time_in_it() -> None:
    audit = content([finding(), finding(finding_id=2, is_extracted=False, arm="held_out", match_type="none")], [arm()])["audit"]
    assert (len(audit["findings"]), audit["controls"], audit["code_bytes"]) == (1, {"n": 1, "n_flagged": 0, "n_true_extractions": 0}, 90)
    assert audit["denominators"] == {"pictures_generated": 100, "prompts": 2, "training_images": 100}
    assert not re.search(r"\d{4}-\d\d-\d\dT", json.dumps(audit))


def test_hostile_captions_are_text_in_the_page_and_in_the_card() -> None:
    filled = content([finding(HOSTILE)], [arm()])
    page = report.rendered("report.html.jinja", filled, html=True)
    assert "<img src=x" not in page and html.escape("<img src=x onerror=alert(1)>") in page
    assert page.count("</script>") == 1 and "<a " not in page
    card = report.rendered("audit_card.md.jinja", filled, html=False)
    assert "<" not in card
    assert report.escaped_markdown(HOSTILE).startswith("&lt;/script&gt;") and "[click]" not in report.escaped_markdown(HOSTILE)


def test_the_page_names_no_address_beyond_itself(audited: Path) -> None:
    page = (audited / "reports" / "v1" / "report.html").read_text()
    assert not re.search(r"""(src|href|action)\s*=\s*["']?(?!data:image/)\w""", page.split("<script>")[0].split("</style>")[1])
    assert "url(" not in page and "@import" not in page and "http" not in page.split("</style>")[0].replace("http-equiv", "")


def test_the_page_and_audit_json_hold_the_same_figures(audited: Path) -> None:
    folder = audited / "reports" / "v1"
    audit, page = json.loads((folder / "audit.json").read_text()), (folder / "report.html").read_text().replace("\u00a0", " ")
    assert audit["verdict"] in page and f"{audit['n_evaluations']:,}" in page
    assert page.count('<article class="pair"') >= len(audit["findings"]) > 30
    assert audit["verdict"] in " ".join((folder / "audit_card.md").read_text().replace("\\", "").split())


@pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("google-chrome")), reason="no Chromium on this machine")
def test_the_page_opens_from_disk_in_chromium_and_its_filter_counts(audited: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000", "--dump-dom"]
    page = (audited / "reports" / "v1" / "report.html").as_uri()
    done = subprocess.run([str(browser), *flags, page], text=True, capture_output=True, check=True, timeout=120)
    audit = json.loads((audited / "reports" / "v1" / "audit.json").read_text())
    assert audit["verdict"] in html.unescape(done.stdout).replace("\u00a0", " ")
    n = len(audit["findings"])
    assert f"{n} of {n} shown" in done.stdout
