"""A figure's numbers are drawn where they belong, in the page and in the PNG; the precision curve is that of the database's view."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks import _figures
from tests.tiny_report import SETTINGS, arm, control, finding, unsampled

THRESHOLDS = SETTINGS["findings"]
FOUND = [finding(number=i, margin=i / 10, similarity=0.9 - i / 20) for i in range(1, 5)]
MISSED = [finding(number=i, margin=i / 10, similarity=0.3, is_extracted=False, match_type="none") for i in range(5, 9)]
CONTROLS = [control(20, margin=0.65), control(21, margin=0.9), control(22, is_calibrating=True), unsampled(23)]


def asked_of(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r | {"text_noise_norm": float(-r["prompt_id"]), "screen_evaluations": 8} for r in findings]


def test_points_stand_inside_the_plot_however_far_they_lie() -> None:
    plot = _figures.distances([*FOUND, control(2, l2=0.9, margin=3.0), unsampled(3)], THRESHOLDS, is_control=True)
    assert [(s.style, plot.marks(s)) for s in plot.series] == [("other", [(100.0, 0.0, "\u2068control 2\u2069: l2 0.900, margin 3.00")])]
    assert plot.corner == (0.15, 0.7) and 0 < plot.x.at(0.15) < 100


def test_targets_and_controls_share_their_axes_and_each_kind_has_its_own_mark() -> None:
    findings = [*FOUND, *MISSED, control(9, l2=0.41, is_flagged=True)]
    targets, controls = (_figures.distances(findings, THRESHOLDS, is_control=c) for c in (False, True))
    assert (targets.x, targets.y) == (controls.x, controls.y)
    assert [s.style for s in targets.series] == ["other", "found"] and [s.style for s in controls.series] == ["flagged"]


def test_many_points_are_one_path() -> None:
    many = [finding(number=i, l2=0.1 + i / 1e5) for i in range(_figures.MAX_NAMED + 1)]
    plot = _figures.distances(many, THRESHOLDS, is_control=False)
    assert not plot.series[0].names and plot.path(plot.series[0]).startswith("M") and len(plot.path(plot.series[0])) < 20 * len(many)


@settings(deadline=None)
@given(st.floats(0.001, 1e9), st.floats(0.001, 1e9))
def test_an_axis_of_powers_keeps_order_and_bounds(a: float, b: float) -> None:
    axis = _figures.powers("x", min(a, b), max(a, b))
    assert 0 <= axis.at(min(a, b)) <= axis.at(max(a, b)) <= 100


@settings(deadline=None)
@given(st.integers(1, 10**7))
def test_an_axis_of_counts_reaches_the_most_with_few_round_ticks(most: int) -> None:
    axis = _figures.counts("x", most)
    assert most <= axis.high < 6 * most + 6 and 2 <= len(axis.ticks) <= 7 and axis.ticks[-1][1] == axis.high


def test_the_share_at_least_as_similar_falls_after_each_value() -> None:
    plot = _figures.similarity([finding(similarity=s) for s in (0.5, 0.7)], 0.6)
    assert plot.path(plot.series[0]) == "M0 0H0V50H50V100H100V100".replace("H0V50", f"H{plot.x.at(0.5):g}V50").replace("H50V100H", f"H{plot.x.at(0.7):g}V100H")
    assert plot.bounds == [("x", 0.6, "near copy 0.60")] and _figures.similarity([finding()], None).bounds == []


def test_the_false_share_of_each_list_is_counted_as_if_it_were_cut_there() -> None:
    plot = _figures.false_share([*FOUND, *MISSED, *CONTROLS])
    assert plot is not None
    estimate, upper, own = plot.series
    flagged = [0, 0, 0, 0, 0, 0, 1, 1]  # the control at 0.65 stands before the seventh; 0.9 after all; calibrating ones judge nothing
    assert estimate.x.tolist() == list(range(9)) and estimate.y[0] == estimate.y[1], "the first list is drawn from 0 on"
    assert np.allclose(estimate.y[1:], [min(1, 8 * (1 + f) / (4 * (i + 1))) for i, f in enumerate(flagged)])
    assert (upper.y >= estimate.y - 1e-9).all() and (own.x.tolist(), own.y.tolist()) == ([4.0], [8 / 16])
    assert _figures.false_share(FOUND) is None, "without controls nothing is estimated"


def test_one_labelled_pair_alone_is_a_line_with_its_band() -> None:
    plot = _figures.manual_precision(np.array([[1.0, 0.025, 1.0]]))
    assert plot is not None
    band, share = plot.series
    assert plot.path(share) == "M0 0H100V0" and plot.path(band) == "M0 97.5L100 97.5L100 0L0 0Z"


def test_findings_are_counted_in_the_order_of_the_screen_after_its_own_cost() -> None:
    plot = _figures.cost(asked_of([*FOUND, *MISSED, *CONTROLS]))
    assert plot is not None
    audit, published = plot.series
    assert audit.x.tolist() == [64, *(64 + 576 * i for i in range(1, 9))] and audit.y.tolist() == [0, 1, 2, 3, 4, 4, 4, 4, 4]
    assert published.x.tolist()[1:] == [50_000 * i for i in range(1, 9)] and "Controls and further captions cost 1,760 more" in plot.note
    assert _figures.cost(asked_of(CONTROLS)) is None


@pytest.mark.parametrize("findings", [[], [unsampled(1)], [unsampled(1, arm="duplicated")], FOUND, [*FOUND, *MISSED, *CONTROLS]])
def test_every_figure_there_is_becomes_a_png_of_the_same_bytes(findings: list[dict[str, Any]], tmp_path: Path) -> None:
    plots = _figures.plots(asked_of(findings), THRESHOLDS, 0.6, np.array([[1.0, 0.1, 1.0], [0.5, 0.1, 0.9]]))
    assert ("targets" in plots) is any(r["margin"] is not None and r["arm"] != "held_out" for r in findings)
    for plot in list(plots.values())[:2]:
        drawn = _figures.png(plot)
        assert drawn == _figures.png(plot) and Image.open(io.BytesIO(drawn)).size == (1200, 800)
    _figures.put({"b": b"2"}, tmp_path / "figures")
    _figures.put({"a": b"1"}, tmp_path / "figures")
    assert [p.name for p in (tmp_path / "figures").iterdir()] == ["a.png"]


def test_rates_stand_from_few_copies_to_many() -> None:
    rows = [arm(copies_bin="10-29"), arm(copies_bin="2-3"), arm("singleton", copies_bin="1"), arm("held_out", copies_bin="unseen"), arm()]
    bins = _figures.by_copies(rows)
    assert [r["copies_bin"] for r in bins] == ["1", "2-3", "10-29"]
    assert Image.open(io.BytesIO(_figures.png_by_copies(bins))).size == (1200, 800)
