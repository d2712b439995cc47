"""A release as diffusers loads it: the only file that imports diffusers. Safetensors and JSON alone; no code of the release runs."""

import gc
import inspect
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tasks import _hostile_models
from tasks._settings import UserError
from tasks._sources import Release

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it complains of torchvision, which nothing here needs, when it is imported
ALPHA_FLOOR = 1e-3  # below this share of signal a noise prediction converted from v vanishes
NOT_NUMBERS = "the release makes pictures that are not numbers (NaN); check its weights and dtype"


@dataclass(frozen=True)
class Sampler:
    """A loaded release with its sampler settings; `pictures` and `noise_norms` are its two uses."""

    pipe: Any  # a diffusers text-to-image pipeline
    settings: dict[str, Any]  # arguments of its call, only those that its signature has
    batch_size: int
    stack: str  # versions, device and dtype: the same seeds on another stack agree only closely
    loaded: dict[str, str] = field(default_factory=dict)  # what else there is to say of it: classes, attention, safety checker

    def pictures(self, captions: list[str], seeds: list[int]) -> tuple[np.ndarray, int]:
        """[n, h, w, 3] uint8, one per caption and seed, and the denoiser evaluations that each took.

        Batches are padded to batch_size: the same seeds in another batch size agree to about 3e-5, not to the bit.
        """
        self.require_fit()
        made, n_evaluations = [], 0
        for start in range(0, len(captions), self.batch_size):
            texts, numbers = captions[start:start + self.batch_size], seeds[start:start + self.batch_size]
            pad = self.batch_size - len(texts)
            with _counted(_denoiser(self.pipe)) as counter:
                images = self._images(texts + texts[-1:] * pad, numbers + numbers[-1:] * pad, self.settings)
            made.append(images[: len(texts)])
            n_evaluations = counter["latents"] // self.batch_size
        floats = np.concatenate(made)
        if not np.isfinite(floats).all():
            raise UserError(NOT_NUMBERS)
        return np.rint(floats * 255).astype(np.uint8), n_evaluations

    def require_fit(self) -> None:
        """Try one full batch, once per sampler, before the first picture. Raises UserError that names the largest batch, halving, that fits."""
        if self._n_fitting < self.batch_size:
            way = f"set it to {self._n_fitting}, which does (all pictures are drawn anew)" if self._n_fitting else "not even one picture does"
            raise UserError(f"generations.batch_size is {self.batch_size}, and such a batch does not fit into memory ({self.stack}); {way}")

    @cached_property
    def _n_fitting(self) -> int:
        n = self.batch_size
        while n and not self._fits(n):
            n //= 2
        return n

    def _fits(self, n: int) -> bool:
        """Whether n pictures at once fit into memory; two steps take as much of it as fifty."""
        import torch

        steps = {k: min(2, v) for k, v in self.settings.items() if k == "num_inference_steps"}
        try:
            self._images(["a picture"] * n, list(range(n)), self.settings | steps)
            return True
        except MemoryError:
            pass
        except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator has no class of its own
            if not isinstance(error, torch.OutOfMemoryError) and "alloc" not in str(error):
                raise
        except (TypeError, ValueError) as error:
            raise UserError(f"{type(self.pipe).__name__} does not take these settings, {self.settings}: {_first_words(error)}") from None
        gc.collect()
        torch.cuda.empty_cache()
        return False

    def _images(self, captions: list[str], seeds: list[int], settings: dict[str, Any]) -> np.ndarray:
        images = getattr(self.pipe(captions, generator=_noise(seeds), output_type="np", **settings), "images", None)
        if images is None:
            raise UserError(f"{type(self.pipe).__name__} makes no pictures; only text-to-image pipelines are audited")
        return np.asarray(images)

    def noise_norms(self, captions: list[str], seeds: list[list[int]]) -> np.ndarray:
        """[n, s] text-conditional noise norm of the first step; each costs two evaluations. Needs has_guidance_pair.

        The model's own prediction (epsilon or v) on start noise at the sampler's first timestep with alpha_bar >= ALPHA_FLOOR.
        """
        norms = np.stack([self._norms_of(c, s) for c, s in zip(captions, seeds, strict=True)])
        if not np.isfinite(norms).all():
            raise UserError(NOT_NUMBERS)
        return norms

    @property
    def has_guidance_pair(self) -> bool:
        """Whether each step has a conditional and an unconditional half that the screen can compare, at a timestep that has some signal.

        Of a U-Net that the text alone conditions. No flow has alpha_bar; few steps on a schedule that starts at zero signal have no such timestep.
        """
        pipe = self.pipe
        if not hasattr(pipe, "unet") or not hasattr(pipe, "encode_prompt") or (self.settings.get("guidance_scale") or 1.0) <= 1.0:
            return False
        takes = list(inspect.signature(pipe.encode_prompt).parameters)[:4]
        others = [getattr(pipe.unet.config, name, None) for name in ("addition_embed_type", "time_cond_proj_dim")]
        return takes == ["prompt", "device", "num_images_per_prompt", "do_classifier_free_guidance"] and others == [None, None] and \
            "negative_prompt_embeds" in inspect.signature(type(pipe).__call__).parameters and self._screened_timestep() is not None

    def _screened_timestep(self) -> Any:
        """The sampler's first timestep with alpha_bar >= ALPHA_FLOOR, or None."""
        scheduler, n_steps = self.pipe.scheduler, self.settings.get("num_inference_steps")
        alphas = getattr(scheduler, "alphas_cumprod", None)
        if alphas is None or n_steps is None:
            return None
        scheduler.set_timesteps(n_steps, device=self.pipe._execution_device)
        return next((t for t in scheduler.timesteps if alphas[int(t)] >= ALPHA_FLOOR), None)

    def _norms_of(self, caption: str, seeds: list[int]) -> np.ndarray:
        import torch

        from tasks.measures.noise import noise_norm

        pipe, n = self.pipe, len(seeds)
        with torch.inference_mode():
            text, empty = pipe.encode_prompt([caption], pipe._execution_device, n, True, negative_prompt=[""])[:2]
            t = self._screened_timestep()
            config = pipe.unet.config
            side = config.sample_size if isinstance(config.sample_size, list | tuple) else [config.sample_size] * 2
            noise = torch.cat([torch.randn(1, config.in_channels, *side, generator=g) for g in _noise(seeds)]).to(text.device, text.dtype)
            x = pipe.scheduler.scale_model_input(noise * pipe.scheduler.init_noise_sigma, t)
            out = pipe.unet(torch.cat([x, x]), t, encoder_hidden_states=torch.cat([empty, text])).sample
        eps_empty, eps_text = out.chunk(2)
        return noise_norm(eps_text, eps_empty)


def sampler(release: Release, *, batch_size: int, device: str, defaults: dict[str, Any]) -> Sampler:
    """The release, loaded; settings are the release's own where it has them, then the defaults, then the pipeline's.

    Raises UserError in one line where it may not be loaded, or diffusers cannot load it as a text-to-image pipeline.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import diffusers
    import torch
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        pipe = _pipe(release, dtype).to(device)
    except UserError as error:
        raise UserError(f"release '{release.name}' ({release.root}) is refused: {error}") from None
    except Exception as error:  # of many libraries, some of which have no class of their own
        raise UserError(f"release '{release.name}' ({release.root}) does not load in diffusers {diffusers.__version__}: {_first_words(error)}") from None
    pipe.set_progress_bar_config(disable=True)
    stack = f"torch {torch.__version__}, diffusers {diffusers.__version__}, {device}, {str(dtype).removeprefix('torch.')}"
    return Sampler(pipe, _call_settings(pipe, {**defaults, **release.settings}), batch_size, stack, _facts(pipe, release))


def _pipe(release: Release, dtype: Any) -> Any:
    """The pipeline with its LoRA, without its safety checker, if nothing speaks against it."""
    import diffusers

    reason = _hostile_models.refusal(release.root)  # once more: the folder may have changed since `inputs` looked
    if reason:
        raise UserError(reason)
    index = diffusers.DiffusionPipeline.load_config(str(release.root))
    _require_classes(release.root, index)
    unchecked = {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in index else {}
    pipe = diffusers.DiffusionPipeline.from_pretrained(str(release.root), dtype=dtype, use_safetensors=True, local_files_only=True, **unchecked)
    _denoiser(pipe)
    if release.lora is not None:
        if not hasattr(pipe, "load_lora_weights"):
            raise UserError(f"diffusers loads no LoRA into {type(pipe).__name__}; fuse it into the weights where you made it")
        pipe.load_lora_weights(str(release.lora.parent), weight_name=release.lora.name, use_safetensors=True, local_files_only=True)
        if not pipe.get_active_adapters():
            raise UserError(f"lora: {release.lora} has no weights for {type(pipe).__name__}; name the base that it was trained on")
    for name, part in pipe.components.items():
        if hasattr(part, "parameters") and any(p.is_floating_point() and p.isnan().any() for p in part.parameters()):
            raise UserError(f"{name} has weights that are not numbers (NaN); save the release again from good ones")
    return pipe


def _require_classes(root: Path, index: dict[str, Any]) -> None:
    """Raise UserError for a pipeline, a part or a part's configuration that names what is no model, schedule or tokenizer of the two libraries."""
    import diffusers
    import transformers

    bases = {"diffusers": (diffusers.ConfigMixin,),
             "transformers": (transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase, transformers.ProcessorMixin,
                              transformers.feature_extraction_utils.FeatureExtractionMixin, transformers.image_processing_utils.ImageProcessingMixin)}
    own = getattr(diffusers, index["_class_name"], None)
    if not isinstance(own, type) or not issubclass(own, diffusers.DiffusionPipeline) or own is diffusers.DiffusionPipeline:
        raise UserError(f"diffusers {diffusers.__version__} has no pipeline '{index['_class_name']}'")
    for part, where in index.items():
        if part in _hostile_models.NEVER_LOADED or not isinstance(where, list | tuple) or where[0] is None:
            continue
        named = getattr({"diffusers": diffusers, "transformers": transformers}[where[0]], where[1], None)
        if named is not None and (not isinstance(named, type) or not issubclass(named, bases[where[0]]) or issubclass(named, diffusers.DiffusionPipeline)):
            raise UserError(f"component {part} is {where[0]}.{where[1]}, which is no model, schedule or tokenizer")
        for file in (root / part).glob("*config.json"):
            said = json.loads(file.read_text(encoding="utf-8"))
            name = said.get("_class_name") if isinstance(said, dict) else None
            if name is not None and not hasattr(diffusers, str(name)):
                raise UserError(f"{part}/{file.name} is of the class '{name}', which diffusers {diffusers.__version__} does not have")


def _facts(pipe: Any, release: Release) -> dict[str, str]:
    """What a protocol records of a loaded release beside its settings and the stack."""
    import diffusers
    import transformers

    index = diffusers.DiffusionPipeline.load_config(str(release.root))
    processors = getattr(_denoiser(pipe), "attn_processors", {}).values()
    backends = {str(getattr(p, "_attention_backend", None) or diffusers.utils.constants.DIFFUSERS_ATTN_BACKEND) for p in processors}
    checker = "off" if (index.get("safety_checker") or [None])[0] else "none"
    return {"pipeline": type(pipe).__name__, "scheduler": type(getattr(pipe, "scheduler", None)).__name__, "safety_checker": checker,
            "attention": ", ".join(sorted({type(p).__name__ for p in processors} | backends)), "transformers": transformers.__version__,
            "lora": "loaded, scale 1" if release.lora else "none"}


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def own_settings(root: Path) -> dict[str, Any]:
    """n_steps and guidance_scale that a release's pipeline takes by itself, from its class alone; 0 for what it does not have.

    Raises UserError for a class that diffusers does not have.
    """
    import diffusers

    name = json.loads((root / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    pipeline = getattr(diffusers, name, None)
    if pipeline is None:
        raise UserError(f"{root}: diffusers {diffusers.__version__} has no pipeline '{name}'")
    parameters = inspect.signature(pipeline.__call__).parameters
    return {own: parameters[k].default if k in parameters else 0 for own, k in (("n_steps", "num_inference_steps"), ("guidance_scale", "guidance_scale"))}


def _call_settings(pipe: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the pipeline's call: those asked for that it has, its own default for a null one."""
    import torch

    parameters = inspect.signature(type(pipe).__call__).parameters
    lacking = next((name for name in ("prompt", "generator", "output_type") if name not in parameters), None)
    if lacking:
        raise UserError(f"{type(pipe).__name__} takes no {lacking}; only text-to-image pipelines are audited")
    named = {"num_inference_steps": asked.get("n_steps"), "guidance_scale": asked.get("guidance_scale"),
             "height": asked.get("height_px"), "width": asked.get("width_px")}
    own = {k: parameters[k].default for k in ("num_inference_steps", "guidance_scale") if k in parameters}
    torch.set_grad_enabled(False)
    return {**own, **{k: v for k, v in named.items() if v is not None and k in parameters}}


def _denoiser(pipe: Any) -> Any:
    found = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    if found is None:
        raise UserError(f"{type(pipe).__name__} has neither a unet nor a transformer; it cannot be audited")
    return found


@contextmanager
def _counted(denoiser: Any) -> Iterator[dict[str, int]]:
    """Count the latents that go through the denoiser: one forward of one latent is one evaluation."""
    counter = {"latents": 0}

    def count(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        latents = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        counter["latents"] += len(latents)

    hook = denoiser.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield counter
    finally:
        hook.remove()


def _noise(seeds: list[int]) -> list[Any]:
    """CPU generators: the same start noise on every device."""
    import torch

    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
