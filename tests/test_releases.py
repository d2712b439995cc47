"""params.yaml edited by lines: what was there stays as it was, what is refused never enters it."""

import difflib
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import parse_yaml
from hypothesis import example, given
from hypothesis import strategies as st

from flows import cli, releases
from tasks import _sources
from tasks._settings import UserError
from tests.conftest import ROOT

OWN = (ROOT / "params.yaml").read_text()
BLOCKS = """# ours
releases:   # under audit
  # the first
  v1:
    model: a/b   # from the Hub
    revision: null

  'v2': {model: c}  # the second
  # the last line of the block

images: {jpeg_quality: 75}
"""
EMPTY = {"{}": "releases: {}   # none yet\nimages: {size: 1}\n", "nothing": "releases:   # none yet\nimages: {size: 1}\n",
         "null": "releases: null   # none yet\nimages: {size: 1}\n", "at the end": "images: {size: 1}\nreleases: {}"}
FOLDER = ROOT / "example" / "releases" / "v0"
NAMES = st.from_regex(_sources.NAME, fullmatch=True)
SPECS = st.fixed_dictionaries({"model": st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)},
                              optional={"revision": st.none(), "n_steps": st.integers(0, 999), "guidance_scale": st.floats(0, 30),
                                        "kept": st.text(st.sampled_from("ab/ #:'\"{}[]&*!|>%@`,\\"), min_size=1)})


@pytest.fixture
def run(in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The command line in a folder with a params.yaml: exit code, what it prints, what it complains of."""
    Path("params.yaml").write_text(BLOCKS)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["eidetic", "releases", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return call


def changed(before: str, after: str) -> tuple[list[str], list[str]]:
    """Lines that went, lines that came."""
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    return [line[2:] for line in lines if line.startswith("- ")], [line[2:] for line in lines if line.startswith("+ ")]


@given(name=NAMES, spec=SPECS, text=st.sampled_from([OWN, BLOCKS]))
@example(name="1e3", spec={"model": "0o17", "revision": "1e" + 38 * "2"}, text=OWN)  # numbers in YAML 1.2, which DVC reads
@example(name="2", spec={"model": "1.5"}, text=BLOCKS)
def test_a_release_comes_in_one_line_and_goes_without_a_trace_whatever_it_is_called(name: str, spec: dict[str, Any], text: str) -> None:
    there = releases.listed(text)
    if name in there:
        return
    with_it = releases.with_release(text, name, spec)
    gone, come = changed(text, with_it)
    assert gone == [] and len(come) == 1
    assert releases.listed(with_it) == there | {name: spec} and list(releases.listed(with_it))[-1] == name
    assert parse_yaml(with_it, "params.yaml")["releases"] == releases.listed(with_it), "DVC reads the same"
    assert releases.without_release(with_it, name) == text


@given(name=NAMES, spec=SPECS, text=st.sampled_from(sorted(EMPTY.values())))
def test_the_first_release_comes_and_the_last_one_goes_and_the_comment_beside_them_stays(name: str, spec: dict[str, Any], text: str) -> None:
    with_it = releases.with_release(text, name, spec)
    assert yaml.safe_load(with_it) == yaml.safe_load(text) | {"releases": {name: spec}} and ("# none yet" in with_it) is ("# none yet" in text)
    without = releases.without_release(with_it, name)
    assert yaml.safe_load(without) == yaml.safe_load(text) | {"releases": {}} and ("# none yet" in without) is ("# none yet" in text)


@pytest.mark.parametrize(("name", "gone"), [("v1", ["  v1:", "    model: a/b   # from the Hub", "    revision: null"]),
                                            ("v2", ["  'v2': {model: c}  # the second"])])
def test_removing_takes_the_lines_of_the_entry_and_no_other(name: str, gone: list[str]) -> None:
    assert changed(BLOCKS, releases.without_release(BLOCKS, name)) == (gone, [])


def test_a_file_without_an_end_of_line_at_its_end_takes_a_release() -> None:
    made = releases.with_release("releases:\n  v1: {model: a}", "v2", {"model": "b"})
    assert made == "releases:\n  v1: {model: a}\n  v2: {model: b}\n"


@pytest.mark.parametrize("text", ["releases: {v1: {model: a}}\n", "releases: {v1: {model: a},\n  v2: {model: b}}\n",
                                  "releases: &all\n  v1: {model: a}\nother: *all\n"])
def test_a_layout_that_is_not_edited_by_machine_is_refused_or_edited_rightly(text: str) -> None:
    for edit, expected in ((lambda: releases.with_release(text, "new", {"model": "x"}), releases.listed(text) | {"new": {"model": "x"}}),
                           (lambda: releases.without_release(text, "v1"), {k: v for k, v in releases.listed(text).items() if k != "v1"})):
        try:
            assert releases.listed(edit()) == expected
        except UserError as error:
            assert "edited by machine; edit the entry" in str(error)


@pytest.mark.parametrize(("text", "told"), [
    ("releases:\n  1.5: {model: a}\n", "release 1.5 in params.yaml: YAML does not read its name as text; write '1.5' in quotes"),
    ("releases:\n  v1: path/to/it\n", "release 'v1' in params.yaml is path/to/it; write `v1: {model: path/or/hub-id, revision: null}`"),
    ("releases:\n  v1:\n", "release 'v1' in params.yaml is None; write `v1: {model: path/or/hub-id, revision: null}`"),
    ("releases: [v1]\n", "the releases of params.yaml are not entries such as `v1: {model: path/or/hub-id, revision: null}`"),
    ("only words\n", "the releases of params.yaml are not entries such as `v1: {model: path/or/hub-id, revision: null}`"),
    ("releases: {\n", "params.yaml is not valid YAML: "),
    ("", "params.yaml lists no release; add one with `eidetic releases add NAME MODEL`"),
])
def test_releases_that_are_not_written_as_such_are_said_to_be_in_one_line(run: Any, text: str, told: str) -> None:
    Path("params.yaml").write_text(text)
    code, said, complaint = run("show", "v1") if not text else run("list")
    if not text:
        assert "no release 'v1' in params.yaml; it lists none" in complaint
        with pytest.raises(UserError) as caught:
            releases.chosen(None)
        complaint = f"eidetic: {caught.value}\n"
    assert (code, said) == (1, "") and complaint.startswith(f"eidetic: {told}") and complaint.count("\n") == 1


def test_a_release_named_twice_is_one_and_an_unknown_one_is_told_beside_those_there_are(run: Any) -> None:
    assert releases.chosen(["v2", "v1", "v2"]) == ["v2", "v1"] and releases.chosen(None) == ["v1", "v2"]
    for words in (["show", "v3"], ["remove", "v3"]):
        assert run(*words) == (1, "", "eidetic: no release 'v3' in params.yaml; it lists v1, v2\n")


def test_the_list_has_each_release_with_its_model(run: Any) -> None:
    Path("params.yaml").write_text(BLOCKS.replace("null", "f" * 40))
    assert run("list") == (0, f"{'v1':<24} a/b@ffffffff\n{'v2':<24} c\n", "")


def test_a_release_is_added_with_what_was_given_and_then_shown_and_removed(run: Any) -> None:
    shutil.copytree(FOLDER, "it's: a #1 model")
    Path("kept.csv").write_text("key\n")
    code, said, complaint = run("add", "1.0", "it's: a #1 model", "--n-steps", "30", "--guidance-scale", "7.5", "--kept", "kept.csv")
    assert (code, said, complaint) == (0, "1.0 is in params.yaml; `eidetic audit 1.0` audits it\n", "")
    entry = {"model": "it's: a #1 model", "revision": None, "n_steps": 30, "guidance_scale": 7.5, "kept": "kept.csv"}
    assert releases.listed(Path("params.yaml").read_text())["1.0"] == entry
    code, said, complaint = run("show", "1.0")
    assert code == 0 and said.startswith("model: it's: a #1 model\nrevision: None\nn_steps: 30\n") and "dvc repro inputs" in said
    assert run("remove", "1.0")[0] == 0 and Path("params.yaml").read_text() == BLOCKS


def test_what_may_not_be_loaded_never_enters_params_yaml(run: Any) -> None:
    shutil.copytree(FOLDER, "pickled")
    Path("pickled/unet/weights.bin").write_bytes(b"")
    refusals = {
        ("v9", "pickled"): "release 'v9' is refused: unet/weights.bin is a pickled",
        ("v1", "pickled"): "release 'v1' is in params.yaml already, as a/b",
        ("a b", "pickled"): "releases: 'a b' cannot be a folder's name",
        ("v9", "./nowhere"): "release 'v9' is refused: model folder ./nowhere",
        ("v9", "some/model"): "release 'v9' is refused: 'some/model' is no folder here",
    }
    for words, told in refusals.items():
        code, said, complaint = run("add", *words)
        assert (code, said) == (1, "") and complaint.startswith(f"eidetic: {told}") and complaint.count("\n") == 1
    assert Path("params.yaml").read_text() == BLOCKS


def test_a_hub_that_does_not_answer_is_no_refusal(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise OSError("no route to the Hub")

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    code, _, complaint = run("add", "v9", "some/model", "--revision", "a" * 40)
    assert code == 75 and "no route to the Hub" in complaint and Path("params.yaml").read_text() == BLOCKS


def test_a_release_that_another_is_compared_to_is_not_removed(run: Any) -> None:
    for setting in {"compare_to", "base"} & set(_sources.ENTRY):
        Path("params.yaml").write_text(BLOCKS.replace("{model: c}", f"{{model: c, {setting}: v1}}"))
        assert run("remove", "v1") == (1, "", "eidetic: release 'v2' is compared to 'v1'; change that in params.yaml first\n")
        assert run("remove", "v2")[0] == 0
