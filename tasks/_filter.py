"""The regurgitation filter: is a picture one that a blocklist stops? For a picture, a batch, any diffusers pipeline, and the audit itself.

    from tasks._filter import RegurgitationFilter

    guard = RegurgitationFilter.load("blocklist")              # an exported blocklist
    guard.screened(picture)[0].is_blocked                      # PIL, or uint8 [h, w, 3]; a batch is a list or [n, h, w, 3]
    pipe = guard.guarded(pipe, action="resample")              # called like the pipeline itself
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks import _blocklists, _embedders, _pictures
from tasks._settings import UserError
from tasks._sources import Release
from tasks.measures import blocking
from tasks.measures.identity import hash63

ACTIONS = ("block", "resample", "report")
MAX_FILE_BYTES = 1 << 28


@dataclass(frozen=True)
class Screened:
    """What the filter says of one picture."""

    is_blocked: bool
    similarity: float  # of the descriptors, to the entry that blocks it or is most like it; nan for an empty blocklist
    likeness: float  # to the entry that blocks it: similarity less what colours and hash differ; nan for a picture that passes
    entry_id: int | None  # that entry
    cluster_id: int | None  # the training image that it stands for

    def __str__(self) -> str:
        if self.entry_id is None:
            return "passes: the blocklist is empty"
        what = f"similarity {self.similarity:.3f} to entry {self.entry_id} (image {self.cluster_id})"
        return f"blocked by likeness {self.likeness:.3f}, {what}" if self.is_blocked else f"passes, {what}"


class RegurgitationFilter:
    """A loaded blocklist with its descriptor; one for all threads of a process."""

    def __init__(self, blocklist: _blocklists.Blocklist, model: _embedders.Embedder) -> None:
        """Raises UserError where the model is another than the list was made with: descriptors of two models are never compared."""
        head = blocklist.head
        if model.provenance(head["size_px"]) != head["descriptor"]:
            raise UserError(f"the blocklist was made with '{head['descriptor']}', and here is '{model.provenance(head['size_px'])}'; install the same one")
        self.blocklist, self.model, self.size_px = blocklist, model, head["size_px"]
        self.pdq_quality, self.is_clear = head["pdq_quality"], blocklist.column("pdq_quality") >= head["pdq_quality"]
        self.entry_id, self.cluster_id, self.hashes = blocklist.column("entry_id"), blocklist.column("cluster_id"), blocklist.hashes()
        self.threshold, self.layouts = blocklist.column("threshold"), blocklist.layouts()

    @classmethod
    def load(cls: "type[RegurgitationFilter]", folder: str | Path, path: str | None = None, device: str = "cpu") -> "RegurgitationFilter":
        """The filter of an exported blocklist; path: the TorchScript file of its descriptor, where it was made with one.

        Raises UserError where the folder is not what it says, or the descriptor is not installed.
        """
        blocklist = _blocklists.read(Path(folder))
        return cls(blocklist, _embedders.embedder(blocklist.head["descriptor"].split(" ")[0], path, device))

    def screened(self, pictures: Any) -> list[Screened]:
        """One answer for each picture: PIL's, uint8 [h, w, 3] or [n, h, w, 3], floats in [0, 1], a list of these, or a tensor [n, 3, h, w]."""
        shown = as_pixels(pictures)
        return [said for start in range(0, len(shown), _embedders.BATCH) for said in self._of_batch(shown[start:start + _embedders.BATCH])]

    def guarded(self, pipe: Any, action: str = "resample", n_resamples: int = 3, report: Callable[[list[Screened]], None] | None = None) -> "GuardedPipeline":
        """The pipeline behind this filter; report is called with what was said of the pictures of each call."""
        if action not in ACTIONS:
            raise UserError(f"action '{action}' is not known; use {', '.join(ACTIONS)}")
        return GuardedPipeline(pipe, self, action, n_resamples if action == "resample" else 0, report)

    def _of_batch(self, shown: list[np.ndarray]) -> list[Screened]:
        if not len(self.blocklist):
            return [Screened(False, float("nan"), float("nan"), None, None)] * len(shown)
        small = [_pictures.resized(p, self.size_px) for p in shown]
        made = self.model.embed(np.stack([_pictures.enlarged(p, self.model.side) for p in small]))
        similarity = made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12) @ self.blocklist.vectors.T
        like = np.full(similarity.shape, -np.inf)
        for i in np.flatnonzero((similarity >= self.threshold).any(axis=1)):  # likeness is never above similarity: no other can be blocked
            like[i] = self._likeness(similarity[i], small[i])
        return [self._said(*one) for one in zip(similarity, like, strict=True)]

    def _likeness(self, similarity: np.ndarray, picture: np.ndarray) -> np.ndarray:
        """[e] likeness of a picture to each entry; an upper bound where that is too low: its hash is taken only where it can decide."""
        colours = blocking.layout_distances(blocking.layout(picture)[None], self.layouts)[0]
        at_most = blocking.likeness(similarity, colours, np.zeros(len(colours)))
        if (at_most < self.threshold).all():
            return at_most
        found, quality = _pictures.pdq(picture)
        n_bits = blocking.hash_distances(np.frombuffer(found, np.uint8)[None], self.hashes)
        return blocking.likeness(similarity, colours, blocking.told_bits(n_bits, np.array([quality >= self.pdq_quality]), self.is_clear)[0])

    def _said(self, similarity: np.ndarray, like: np.ndarray) -> Screened:
        blocks = like >= self.threshold
        best = int(np.argmax(np.where(blocks, like, -np.inf) if blocks.any() else similarity))
        likeness = float(like[best]) if blocks.any() else float("nan")
        return Screened(bool(blocks.any()), float(similarity[best]), likeness, int(self.entry_id[best]), int(self.cluster_id[best]))


class GuardedPipeline:
    """A text-to-image pipeline of diffusers behind a filter: called like it, with its signature, and otherwise it too.

    `block` gives black pictures for blocked ones; `resample` first draws the call again, from seeds derived from those given, and takes from
    it what replaces a blocked picture; `report` changes nothing. What was said last is in `screened`.
    """

    def __init__(self, pipe: Any, guard: RegurgitationFilter, action: str, n_resamples: int, report: Callable[[list[Screened]], None] | None) -> None:
        self.pipe, self.guard, self.action, self.n_resamples, self.report = pipe, guard, action, n_resamples, report
        self.screened: list[Screened] = []
        self.__signature__ = inspect.signature(pipe.__call__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["pipe"], name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The pipeline's own result, its pictures screened. Raises UserError for latents: there is no picture to look at."""
        given = self._given(args, kwargs)
        if given.get("output_type") == "latent":
            raise UserError("output_type 'latent' shows the filter no picture; ask for pil, np or pt")
        made = self.pipe(*args, **kwargs)
        pictures = _pictures_of(made)
        said = self.guard.screened(pictures)
        for attempt in range(1, self.n_resamples + 1):
            if not any(one.is_blocked for one in said):
                break
            anew = {"generator": _reseeded(given["generator"], attempt)} if given.get("generator") is not None else {}
            again = _pictures_of(self.pipe(**{name: value for name, value in given.items() if name != "latents"} | anew))
            for i, one in enumerate(self.guard.screened(again)):
                if said[i].is_blocked and not one.is_blocked:
                    pictures[i], said[i] = again[i], one
        for i, one in enumerate(said):
            if one.is_blocked and self.action != "report":
                pictures[i] = pictures[i].point(lambda _: 0) if hasattr(pictures[i], "point") else 0
        self.screened = said
        if self.report is not None:
            self.report(said)
        return made

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name."""
        bound = self.__signature__.bind(*args, **kwargs)
        more = [name for name, p in self.__signature__.parameters.items() if p.kind is inspect.Parameter.VAR_KEYWORD]
        return {k: v for k, v in bound.arguments.items() if k not in more} | {k: v for name in more for k, v in bound.arguments.get(name, {}).items()}


@dataclass(frozen=True)
class FilteredSampler:
    """A release's sampler behind a filter: a blocked picture is drawn again from further seeds, and black where all are blocked."""

    sampler: Any  # _pipelines.Sampler
    guard: RegurgitationFilter
    n_resamples: int

    @property
    def settings(self) -> dict[str, Any]:
        """Of the sampler."""
        return dict(self.sampler.settings)

    @property
    def stack(self) -> str:
        """Of the sampler."""
        return str(self.sampler.stack)

    def pictures(self, captions: list[str], seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """[n, h, w, 3] uint8, one per caption and seed, and [n] int denoiser evaluations that each took, those of blocked ones too.

        A picture and what takes its place hang on its own seed alone.
        """
        made, each = self.sampler.pictures(captions, seeds)
        made, n_evaluations = made.copy(), np.full(len(seeds), each, np.int64)
        blocked = self._blocked(made, np.arange(len(seeds)))
        for attempt in range(1, self.n_resamples + 1):
            if not len(blocked):
                break
            again, _ = self.sampler.pictures([captions[i] for i in blocked], [hash63(str(seeds[i]), "again", str(attempt)) for i in blocked])
            made[blocked], n_evaluations[blocked] = again, n_evaluations[blocked] + each
            blocked = self._blocked(made, blocked)
        made[blocked] = 0
        return made, n_evaluations

    def _blocked(self, made: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return rows[[one.is_blocked for one in self.guard.screened(made[rows])]]


def behind_filter(sampler: Any, release: Release, device: str) -> Any:
    """The sampler, behind the filter that the release names, if it names one."""
    if release.filter is None:
        return sampler
    return FilteredSampler(sampler, RegurgitationFilter.load(release.filter, device=device), release.n_resamples)


def of_files(files: list[Path], folder: Path, path: str | None) -> list[Screened | str]:
    """What the filter of an exported blocklist says of each file; the reason in words for what is no picture."""
    guard, said = RegurgitationFilter.load(folder, path), list[Screened | str]()
    for file in files:
        try:
            if file.stat().st_size > MAX_FILE_BYTES:
                raise _pictures.BadPicture(f"a file of more than {MAX_FILE_BYTES} bytes")
            said.append(guard.screened(_pictures.canonical(file.read_bytes()))[0])
        except (_pictures.BadPicture, OSError) as error:
            said.append(f"not checked: {error.strerror if isinstance(error, OSError) and error.strerror else error}")
    return said


def as_pixels(pictures: Any) -> list[np.ndarray]:
    """[h, w, 3] uint8 of each picture. Raises UserError for what is none."""
    if hasattr(pictures, "detach"):  # a tensor [n, 3, h, w] in [0, 1]
        pictures = pictures.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    if hasattr(pictures, "convert") or (isinstance(pictures, np.ndarray) and pictures.ndim == 3):
        pictures = [pictures]
    made = [np.asarray(p.convert("RGB")) if hasattr(p, "convert") else np.asarray(p) for p in pictures]
    wrong = next((p for p in made if p.ndim != 3 or p.shape[2] != 3 or min(p.shape) < 1 or p.dtype.kind not in "uf"), None)
    if wrong is not None:
        raise UserError(f"an array {wrong.shape} {wrong.dtype} is no picture; give [h, w, 3] in uint8, or floats in [0, 1]")
    return [np.ascontiguousarray(p if p.dtype == np.uint8 else np.rint(np.clip(p, 0, 1) * 255).astype(np.uint8)) for p in made]


def _pictures_of(made: Any) -> Any:
    return made[0] if isinstance(made, tuple) else made.images


def _reseeded(generator: Any, attempt: int) -> Any:
    """Generators like these, from seeds derived from theirs."""
    if isinstance(generator, list):
        return [_reseeded(one, attempt) for one in generator]
    return type(generator)(generator.device).manual_seed(hash63(str(generator.initial_seed()), "again", str(attempt)))
