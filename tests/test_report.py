"""One sentence, one page, one file for CI; hostile captions do nothing; no request leaves the page."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import hypergeom

from tasks import _pages, report
from tests.tiny_report import NOT_COMPARED, arm, audited_tables, change, clique_alone, compared, control, filled, finding, page_of, unsampled

CAPTION = "<img src=x onerror=alert(1)>"
HOSTILE = f"</script>{CAPTION}\"' [click](javascript:alert(1)) | `x` http://a.example www.b.example \u202e {{{{ 700 * 7 }}}}"


class Elements(HTMLParser):
    """Tags with their attributes, as a browser would make them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def assert_asks_for_nothing(page: str) -> None:
    """No address but data: and fragments of this page, no event handler, one script, no style that loads."""
    for tag, attributes in Elements(page).tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "srcset", "href", "xlink:href", "action", "formaction", "poster", "data", "background", "ping"):
                assert (value or "").startswith("#" if tag in ("a", "use") else "data:image/webp;base64,"), (tag, name, value)
            assert name != "style" or "url" not in (value or "")
        assert tag not in ("link", "iframe", "object", "embed", "base", "audio", "video", "source")
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.S))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert "url(" not in styles and "@import" not in styles and len(scripts) == 1
    assert not re.search(r"https?:|fetch|XMLHttp|import\(|WebSocket|sendBeacon", scripts[0])


def test_the_verdict_states_the_interval_the_controls_and_the_false_share() -> None:
    assert report.verdict([arm()], "v1") == (
        "v1: 34 of the 64 most duplicated images come back (53 %, 95 % interval 40–66 %), 0 of 64 it never saw do; "
        "estimated false-discovery rate 3 %, at most 9 %")


def test_the_verdict_without_held_out_images_says_that_nothing_bounds_the_error() -> None:
    assert report.verdict([arm(controls=0)], "v1") == (
        "v1: 34 of the 64 most duplicated images come back (53 %, 95 % interval 40–66 %); "
        "no held-out images were given, so nothing bounds the false-discovery rate")


def test_the_verdict_of_an_empty_list_estimates_no_false_share_of_it() -> None:
    assert report.verdict([arm(k=0, low=0.0, high=0.056)], "v2") == (
        "v2: 0 of the 64 most duplicated images come back (0 %, 95 % interval 0–6 %), 0 of 64 it never saw do")


def test_the_verdict_without_a_training_set_speaks_of_cliques() -> None:
    assert report.verdict([arm("custom", k=0, controls=0)], "v1", 5) == (
        "v1: 5 of 64 prompts give the same picture again and again (clique); no training image is confirmed; "
        "no held-out images were given, so nothing bounds the false-discovery rate")
    assert report.verdict([arm("custom", k=0, controls=0) | NOT_COMPARED], "v1", 1) == (
        "v1: 1 of 64 prompts gives the same picture again and again (clique); no training picture was there to compare with, so no copy is "
        "confirmed or ruled out, and no control bounds what chance does")
    assert "no target was prompted" in report.verdict([arm("held_out")], "v1")


def test_the_verdict_of_other_arms_names_them_and_counts_in_the_singular() -> None:
    assert "1 of the 64 images seen once comes back" in report.verdict([arm("singleton", k=1)], "v1")
    assert "1 of 64 it never saw does" in report.verdict([arm(flagged=1)], "v1")


def test_what_the_screen_may_have_missed_is_bounded_by_those_it_dropped_and_that_were_sampled_all_the_same() -> None:
    kept = [finding(number=i) for i in range(30)]
    dropped = [finding(number=i, is_extracted=i == 30, n_generations=16 if i < 35 else 0) for i in range(30, 70)]
    strata = {r["prompt_id"]: "kept" if r["prompt_id"] < 30 else "dropped" for r in [*kept, *dropped]}
    said = report.screened([*kept, *dropped, control(99)], strata)
    most = max(k for k in range(41) if hypergeom.cdf(1, 40, k, 5) > 0.025)
    assert said == {"n_dropped": 40, "n_sampled": 5, "n_findings": 1, "most_findings": most, "share_high": most / (most + 30)}
    assert report.screened(kept, dict.fromkeys(range(30), "unscreened")) is None


def test_audit_json_counts_what_the_tables_say() -> None:
    copies = [finding(), finding(number=2, cluster_id=1, code_bytes=70)]
    true_extraction = finding("unseen", 5, arm="held_out", is_own_image=False)
    audit = audited_tables([*copies, true_extraction, control(3), unsampled(4)], [arm(), arm("held_out")])
    assert audit["controls"] == {"n": 3, "n_sampled": 2, "n_flagged": 0, "n_true_extractions": 1}
    assert audit["totals"] == {"prompts": 5, "screened_out": 1, "generations": 96, "evaluations": 4 * 584 + 8}
    assert audit["denominators"] == {"pictures_generated": 96, "prompts": 5, "training_images": 100}
    assert [r["finding_id"] for r in audit["findings"]] == [1, 2, 5]
    assert audit["code_bytes"] == 180, "copies of one cluster are one observation"
    assert audit["limits"].pop("fdr_if_chance")["estimate"] == pytest.approx(64 * 2 / (4 * 34))
    assert audit["limits"] == {"n_matched_controls": 3, "smallest_p": 0.25, "n_controls_needed": 90}
    assert audit["estimated_totals"] == [{"arm": "duplicated", "n_clusters": 74, "estimate": 40.0, "low": 34, "high": 50}]
    assert audit["schema_version"] == 1 and audit["checks"] == {"n": 0, "n_failed": 0}


def test_controls_are_listed_nearest_first_and_true_extractions_are_not_among_them() -> None:
    false_alarm, returned = control(3, margin=0.99, is_flagged=True), control(4, is_extracted=True)
    rows = [control(1), control(2, margin=0.9), false_alarm, returned, unsampled(5)]
    assert [r["finding_id"] for r in report.near_controls(rows)] == [3, 2, 1]


def test_each_band_of_l2_stands_apart() -> None:
    near = finding(number=3, match_type="near_copy", l2_band=None)
    rows = [finding(number=1, l2_band="0.15"), finding(number=2, l2_band="0.05"), near, finding(number=4, l2_band=None)]
    assert [[r["finding_id"] for r in of] for _, of in report.bands(rows)] == [[2], [1], [4], [3]]


def test_the_page_has_at_most_five_hundred_pairs_and_says_where_the_rest_is() -> None:
    page = page_of([finding(number=i) for i in range(520)], [arm()])
    assert page.count('<article class="pair"') == 500 and "select * from findings" in page and "520 prompts" in page


@pytest.mark.parametrize("findings, summary", [
    ([finding(HOSTILE), control(2, is_flagged=True)], [arm(flagged=1), arm("held_out")]),
    ([control(1), unsampled(2)], [arm("held_out")]),
    ([unsampled(3, arm="duplicated")], [arm(k=0)]),
    ([clique_alone()], [arm("custom", k=0, controls=0, estimated_total=None)]),
    ([clique_alone(is_compared=False, hit_rate=None)], [arm("custom", k=0, controls=0) | NOT_COMPARED]),
], ids=["hostile", "controls_alone", "nothing_found", "custom_alone", "no_training_set"])
def test_every_case_has_a_page_that_asks_for_nothing(findings: list[dict[str, Any]], summary: list[dict[str, Any]]) -> None:
    page = page_of(findings, summary)
    assert_asks_for_nothing(page)
    assert _pages.rendered("audit_card.md.jinja", filled(findings, summary), html=False).startswith("## Memorization audit")


def test_without_training_pictures_page_and_card_say_what_cannot_be_claimed_and_state_no_rate() -> None:
    found = [clique_alone(is_compared=False, hit_rate=None, caption_key="kettle.png", caption_copies=12)]
    summary = [arm(k=0, controls=0) | NOT_COMPARED]
    page, card = page_of(found, summary), _pages.rendered("audit_card.md.jinja", filled(found, summary), html=False)
    for text in (page, card):
        assert "no training image can be named, no copy is confirmed or ruled out" in text and "lower bound" not in text
    assert "<bdi>kettle.png</bdi>, 12 copies in the training set; not compared" in page
    assert "come back" not in re.sub(r"<(style|script)>.*?</>|<th.*?</th>|“.*?”", "", page, flags=re.S).split("How to read")[0].split("What comes back")[0]
    assert "| duplicated | 64 | not measured | – |" in card and "0 %" not in card


def test_what_further_captions_brought_is_said_beside_the_rates_and_counts_for_no_control() -> None:
    again = [control(7, caption_rank=1), finding(number=8, caption_rank=1)]
    told = {"n_further_prompts": 12, "n_further_findings": 3}
    summary = [arm(**told), arm("held_out", n_further_prompts=5, n_further_flagged=1)]
    audit = audited_tables([finding(), control(2), *again], summary)
    assert audit["controls"]["n"] == 1 and audit["further_captions"] == {"n_prompts": 12, "n_findings": 3, "n_controls": 5, "n_flagged": 1}
    page = page_of([finding(), control(2), *again], summary)
    assert "12 further captions of the same images were asked: by these alone 3 more images came back (1 of 5 further captions" in page


def test_a_caption_of_which_nothing_can_be_seen_is_called_blank() -> None:
    page = page_of([finding("\u200b \u202e", 1), control(2)], [arm()], changes=[change(1)], comparisons=[compared()])
    assert page.count("<bdi>(blank)</bdi>") == 3 and '["1","(blank)",' in page, "its heading, its prompt, among the new ones, its row"


def test_hostile_captions_are_text_in_the_page_and_in_the_card() -> None:
    copy = finding(HOSTILE)
    page = page_of([copy], [arm()])
    assert "<img src=x" not in page and html.escape(CAPTION) in page and page.count("</script>") == 3 and "{{ 700 * 7 }}" in page
    assert [a["alt"] for tag, a in Elements(page).tags if tag == "img"][0].startswith("Generated from the prompt: </script><img")
    card = _pages.rendered("audit_card.md.jinja", filled([copy], [arm()]), html=False)
    assert "<" not in card and "&lt;img src=x onerror=alert(1)&gt;" in card
    row = next(line for line in card.splitlines() if "onerror" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 7 and "[click]" not in row and "http://" not in row and "www.b" not in row


@pytest.mark.parametrize("release", ["v1", "v2"])
def test_the_page_the_card_and_audit_json_hold_the_same_figures(audited: Path, release: str) -> None:
    folder = audited / "reports" / release
    audit = json.loads((folder / "audit.json").read_text())
    page = (folder / "report.html").read_text().replace("\u00a0", " ")
    assert f"<h1>{audit['verdict']}.</h1>" in page
    assert audit["verdict"] in (folder / "audit_card.md").read_text().replace("\\", "")
    assert all(f"<dd>{n:,}</dd>" in page for n in (*audit["denominators"].values(), audit["totals"]["evaluations"]))
    listed = re.findall(r'data-type="(?:verbatim|near_copy|template)" data-l2="([^"]+)"', page)
    assert sorted(map(float, listed)) == [r["l2"] for r in audit["findings"]]
    assert_asks_for_nothing(page)
    assert not re.search(r"\d{4}-\d\d-\d\dT", json.dumps(audit)), "no time stamps"
    assert audit["denominators"]["training_images"] == {"v1": 1436, "v2": 502}[release], "v2 was trained on kept.csv alone"


def test_a_second_run_writes_the_same_bytes(audited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(audited)
    folder = audited / "reports" / "v1"
    before = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}
    report.main("v1")
    assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")} == before
    drawn = {f"figures/{name}.png" for name in ("by_copies", "targets", "controls", "similarity", "false_share", "cost")}
    assert set(before) == {"report.html", "audit_card.md", "audit.json"} | drawn
