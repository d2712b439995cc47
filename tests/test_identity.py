"""Ids that never change: golden values, a twin over the digest's bits, and repeated ids named."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.measures.identity import hash63, require_distinct

parts = st.lists(st.text(st.characters(exclude_characters="\x1f", exclude_categories=["Cs"])), min_size=1, max_size=4)


@given(parts)
def test_is_the_first_63_bits_of_the_digest(texts):
    digest = hashlib.sha256("\x1f".join(texts).encode()).hexdigest()
    bits = "".join(f"{int(digit, 16):04b}" for digit in digest)
    assert hash63(*texts) == int(bits[:63], 2)


@given(parts)
def test_fits_a_signed_64_bit_integer(texts):
    assert 0 <= hash63(*texts) < 2**63
    assert int(np.int64(hash63(*texts))) == hash63(*texts)


def test_never_changes_its_value():
    assert hash63("abc") == 0xBA7816BF8F01CFEA >> 1  # the first test vector of FIPS 180-2
    assert hash63("") == 0xE3B0C44298FC1C14 >> 1


@given(parts, parts)
def test_differs_where_the_parts_differ(some, others):
    assert (hash63(*some) == hash63(*others)) == (some == others)


def test_the_cut_between_the_parts_and_their_order_count():
    assert len({hash63("a", "b"), hash63("b", "a"), hash63("ab"), hash63("ab", ""), hash63("", "ab")}) == 5


def test_another_process_with_another_hash_seed_gives_the_same_id():
    code = "from tasks.measures.identity import hash63; print(hash63('member', 'café 7'))"
    root = Path(__file__).resolve().parents[1]
    seen = set()
    for seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root), "PYTHONIOENCODING": "utf-8"}
        seen.add(subprocess.run([sys.executable, "-c", code], env=env, cwd=root, capture_output=True, check=True).stdout.decode())
    assert seen == {f"{hash63('member', 'café 7')}\n"}


def test_ten_thousand_keys_have_ten_thousand_ids():
    ids = np.array([hash63("member", str(row)) for row in range(10_000)])
    require_distinct(ids, "image_id")
    assert abs((ids > 2**62).mean() - 0.5) < 0.03  # all 63 bits are used


@given(st.lists(st.integers(0, 20), max_size=12))
def test_raises_exactly_where_an_id_repeats_and_names_the_first_two_rows(ids):
    repeated = [row for row, value in enumerate(ids) if ids.count(value) > 1]
    if not repeated:
        require_distinct(np.array(ids, np.int64), "prompt_id")
        return
    value = ids[repeated[0]]
    rows = [row for row, other in enumerate(ids) if other == value][:2]
    n_repeating = len({other for other in ids if ids.count(other) > 1})
    with pytest.raises(ValueError) as error:
        require_distinct(np.array(ids, np.int64), "prompt_id")
    assert str(error.value).startswith(f"prompt_id {value} stands in rows {rows} ({n_repeating} ids repeat)")
