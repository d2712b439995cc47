"""Which findings a page shows and asks about; pictures and rows keep their budget whatever they hold."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import _pairs, _pictures
from tests.tiny_report import PROTOCOL, control, finding, unsampled


def test_every_new_pair_is_among_the_five_hundred_and_the_rest_are_the_closest() -> None:
    found = [finding(number=i, l2=i / 10_000) for i in range(700)]
    shown = _pairs.pairs(found, {699, 650})
    assert [r["finding_id"] for r in shown] == [*range(498), 650, 699]


def test_half_of_what_is_asked_about_are_decoys_in_an_order_that_does_not_tell() -> None:
    shown = [finding(number=i) for i in range(150)]
    controls = [control(i) for i in range(1000, 1060)] + [control(2000, is_extracted=True), unsampled(2001), control(2002, caption_rank=1)]
    asked = _pairs.asked(shown, [*shown, *controls], PROTOCOL)
    is_decoy = np.array([r["arm"] == "held_out" for r in asked])
    assert is_decoy.sum() == 60 and (~is_decoy).sum() == 60 and {r["finding_id"] for r in asked} & {2000, 2001, 2002} == set()
    assert 20 < np.diff(is_decoy).sum() < 100, "neither apart nor in turns"
    assert asked == _pairs.asked(shown[::-1], [*controls, *shown], PROTOCOL) != _pairs.asked(shown, [*shown, *controls], "another")


def test_a_person_is_asked_about_a_hundred_pairs_at_most_and_without_decoys_all_the_same() -> None:
    shown = [finding(number=i) for i in range(150)]
    assert len(_pairs.asked(shown, shown, PROTOCOL)) == 100 and _pairs.asked([], [control(1)], PROTOCOL) == []


def test_rows_tell_what_is_extracted_flagged_pictured_and_new() -> None:
    findings = [control(3, margin=0.5, is_flagged=True), finding("b", 2, margin=0.3), finding("a", 1), unsampled(4)]
    told = _pairs.rows(findings, {1}, {2, 3})
    assert [(r[0], r[10]) for r in told["rows"]] == [("2", 1 + 8), ("1", 1 + 4), ("3", 2), ("4", 0)]
    assert told["rows"][0][4:9] == [80, 300, 700, 20, 1000] and told["rows"][3][4:9] == [None, None, None, None, None]
    assert (told["arms"], told["types"], told["n"]) == (["duplicated", "held_out"], ["none", "verbatim"], 4)


def test_rows_keep_their_budget_whatever_the_captions() -> None:
    findings = [finding("\u202e\"<😀" * 200, i) for i in range(10_050)]
    told = _pairs.rows(findings, set(), set())
    assert len(told["rows"]) == 10_000 and told["n"] == 10_050
    assert len(json.dumps(told["rows"], ensure_ascii=False, separators=(",", ":")).encode()) <= _pairs.ROWS_BYTES


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 200), st.integers(4, 200), st.integers(60, 3000))
def test_a_thumbnail_keeps_its_budget_and_a_small_picture_its_pixels(width: int, height: int, budget: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = _pictures.thumbnail(noise, 128, budget)
    assert len(data) <= budget
    if max(width, height) <= 128 and width * height * 3 + 300 <= budget:  # a lossless WebP of noise is its bytes and up to 250 more
        assert (_pictures.canonical(data) == noise).all()


def test_a_difference_is_black_where_pictures_agree_and_four_times_the_difference_elsewhere() -> None:
    a, b = np.full((8, 8, 3), 100, np.uint8), np.full((8, 8, 3), 100, np.uint8)
    b[0, 0] = (90, 103, 255)
    apart = _pairs.difference(a, b, 8)
    assert apart[0, 0].tolist() == [40, 12, 255] and apart.sum() == 40 + 12 + 255
    assert (_pairs.difference(a, np.full((16, 16, 3), 100, np.uint8), 8) == 0).all(), "both at the side of the audit"
