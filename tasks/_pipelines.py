"""A release as diffusers loads it: the only file that imports diffusers. Safetensors and JSON alone; no code of the release runs."""

import inspect
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks._settings import UserError
from tasks._sources import Release

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it complains of torchvision, which nothing here needs, when it is imported
ALPHA_FLOOR = 1e-3  # below this share of signal a noise prediction converted from v vanishes


@dataclass(frozen=True)
class Sampler:
    """A loaded release with its sampler settings; `pictures` and `noise_norms` are its two uses."""

    pipe: Any  # a diffusers text-to-image pipeline
    settings: dict[str, Any]  # arguments of its call, only those that its signature has
    batch_size: int
    stack: str  # versions, device and dtype: the same seeds on another stack agree only closely

    def pictures(self, captions: list[str], seeds: list[int]) -> tuple[np.ndarray, int]:
        """[n, h, w, 3] uint8, one per caption and seed, and the denoiser evaluations that each took.

        Batches are padded to batch_size: the same seeds in another batch size agree to about 3e-5, not to the bit.
        """
        made, n_evaluations = [], 0
        for start in range(0, len(captions), self.batch_size):
            texts, numbers = captions[start:start + self.batch_size], seeds[start:start + self.batch_size]
            pad = self.batch_size - len(texts)
            with _counted(_denoiser(self.pipe)) as counter:
                out = self.pipe(texts + texts[-1:] * pad, generator=_noise(numbers + numbers[-1:] * pad), output_type="np", **self.settings)
            made.append(out.images[: len(texts)])
            n_evaluations = counter["latents"] // self.batch_size
        floats = np.concatenate(made)
        if not np.isfinite(floats).all():
            raise UserError("the release makes pictures that are not numbers (NaN); check its weights and dtype")
        return np.rint(floats * 255).astype(np.uint8), n_evaluations

    def noise_norms(self, captions: list[str], seeds: list[list[int]]) -> np.ndarray:
        """[n, s] text-conditional noise norm of the first step; each costs two evaluations. Needs has_guidance_pair.

        The model's own prediction (epsilon or v) on start noise at the sampler's first timestep with alpha_bar >= ALPHA_FLOOR.
        """
        return np.stack([self._norms_of(c, s) for c, s in zip(captions, seeds, strict=True)])

    @property
    def has_guidance_pair(self) -> bool:
        """Whether each step has a conditional and an unconditional half that the screen can compare."""
        return hasattr(self.pipe, "unet") and hasattr(self.pipe, "encode_prompt") and self.settings.get("guidance_scale", 1.0) > 1.0 and \
            "negative_prompt_embeds" in inspect.signature(type(self.pipe).__call__).parameters and \
            getattr(self.pipe.unet.config, "addition_embed_type", None) is None

    def _norms_of(self, caption: str, seeds: list[int]) -> np.ndarray:
        import torch

        from tasks.measures.noise import noise_norm

        pipe, n = self.pipe, len(seeds)
        with torch.inference_mode():
            text, empty = pipe.encode_prompt([caption], pipe._execution_device, n, True, negative_prompt=[""])[:2]
            pipe.scheduler.set_timesteps(self.settings["num_inference_steps"], device=pipe._execution_device)
            t = next(t for t in pipe.scheduler.timesteps if pipe.scheduler.alphas_cumprod[int(t)] >= ALPHA_FLOOR)
            config = pipe.unet.config
            side = config.sample_size if isinstance(config.sample_size, list | tuple) else [config.sample_size] * 2
            noise = torch.cat([torch.randn(1, config.in_channels, *side, generator=g) for g in _noise(seeds)]).to(text.device, text.dtype)
            x = pipe.scheduler.scale_model_input(noise * pipe.scheduler.init_noise_sigma, t)
            out = pipe.unet(torch.cat([x, x]), t, encoder_hidden_states=torch.cat([empty, text])).sample
        eps_empty, eps_text = out.chunk(2)
        return noise_norm(eps_text, eps_empty)


def sampler(release: Release, *, batch_size: int, device: str, defaults: dict[str, Any]) -> Sampler:
    """The release, loaded; settings are the release's own where it has them, then the defaults, then the pipeline's.

    Raises UserError in one line where diffusers cannot load it as a text-to-image pipeline.
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
    index = diffusers.DiffusionPipeline.load_config(str(release.root))
    unchecked = {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in index else {}
    try:
        pipe = diffusers.DiffusionPipeline.from_pretrained(str(release.root), dtype=dtype, use_safetensors=True, local_files_only=True, **unchecked)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
        raise UserError(f"release '{release.name}' ({release.root}) does not load in diffusers {diffusers.__version__}: "
                        f"{' '.join(str(error).split())[:300]}") from None
    pipe = pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    stack = f"torch {torch.__version__}, diffusers {diffusers.__version__}, {device}, {str(dtype).removeprefix('torch.')}"
    return Sampler(pipe, _call_settings(pipe, {**defaults, **release.settings}), batch_size, stack)


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
    if "prompt" not in parameters:
        raise UserError(f"{type(pipe).__name__} takes no prompt; only text-to-image pipelines are audited")
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
