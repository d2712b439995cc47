"""params.yaml is read in one place, and what is wrong with it is said in one line."""

import pickle
from pathlib import Path

import pytest

from tasks import _settings


def test_a_block_is_its_settings_and_an_empty_one_has_none(in_folder: Path) -> None:
    Path("params.yaml").write_text("images: {jpeg_quality: 75}\nreport:\n")
    assert _settings.settings("images") == {"jpeg_quality": 75} and _settings.settings("report") == {}


@pytest.mark.parametrize(("text", "said"), [(None, "no params.yaml in"), ("a: [1", "params.yaml is not valid YAML"), ("other: 1", "has no block 'images'")])
def test_what_is_wrong_is_one_line_with_the_way_out(in_folder: Path, text: str | None, said: str) -> None:
    if text is not None:
        Path("params.yaml").write_text(text)
    with pytest.raises(_settings.UserError, match=said) as caught:
        _settings.settings("images")
    assert "\n" not in str(caught.value)


def test_a_missing_setting_is_named_also_where_more_are_merged_in_or_a_worker_has_it(in_folder: Path) -> None:
    Path("params.yaml").write_text("images: {jpeg_quality: 75}\n")
    for block in (_settings.settings("images"), _settings.settings("images") | {"more": 1}, pickle.loads(pickle.dumps(_settings.settings("images")))):
        assert block["jpeg_quality"] == 75
        with pytest.raises(_settings.UserError, match="params.yaml has no images.version; copy the line"):
            block["version"]


def test_what_passes_by_itself_is_a_persons_error_too() -> None:
    assert issubclass(_settings.TryAgain, _settings.UserError)
