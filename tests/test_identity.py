"""Ids are stable, of 63 bits, and a collision is an error."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.measures.identity import hash63, require_distinct


def test_an_id_never_changes_between_runs_and_machines():
    # of `printf 'member\x1fa.png' | sha256sum`: 6cfa437b0786f6bf ... >> 1, computed outside Python; a change orphans every audit on disk
    assert hash63("member", "a.png") == 3926331547980102495


def test_an_id_is_the_digest_read_as_a_number_without_its_last_bit():
    digest = hashlib.sha256(b"a\x1fb").hexdigest()
    assert hash63("a", "b") == int(digest[:16], 16) // 2


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_ids_fit_a_signed_64_bit_column(parts):
    assert 0 <= hash63(*parts) < 2**63
    assert np.int64(hash63(*parts)) == hash63(*parts)


def test_parts_are_kept_apart_and_in_order():
    made = {hash63(*parts) for parts in (("ab", "c"), ("a", "bc"), ("abc",), ("c", "ab"), ("ab", "c", ""), ("",))}
    assert len(made) == 6


def test_distinct_ids_pass():
    require_distinct(np.array([3, 1, 2]), "image_id")
    require_distinct(np.array([], np.int64), "image_id")


def test_a_collision_is_named_with_its_rows():
    with pytest.raises(ValueError, match=r"image_id 5 stands in rows \[1, 3\] \(2 ids repeat\)"):
        require_distinct(np.array([9, 5, 7, 5, 7, 5]), "image_id")
