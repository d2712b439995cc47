"""Random pipelines of a few thousand weights, laid out file by file as the models that people release: names, classes, shards, tokenizers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from sentencepiece import sentencepiece_model_pb2

WIDTH = 32  # of the text encoders
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,-"


def clip_tokenizer(folder: Path) -> None:
    """CLIP's, of single letters: four files and no tokenizer.json, as Stable Diffusion has them."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(ends))
    (folder / "tokenizer_config.json").write_text(json.dumps(ends | {
        "add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 16, "tokenizer_class": "CLIPTokenizer",
        "name_or_path": "openai/clip-vit-large-patch14", "special_tokens_map_file": "./special_tokens_map.json"}))


def t5_tokenizer(folder: Path) -> None:
    """T5's, of single letters: a SentencePiece model and no tokenizer.json, as PixArt has it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = sentencepiece_model_pb2.ModelProto()
    for piece, kind in [("<pad>", 3), ("</s>", 3), ("<unk>", 2), *((letter, 1) for letter in f"▁{LETTERS}")]:
        model.pieces.add(piece=piece, score=-2.0 if kind == 1 else 0.0, type=kind)
    model.trainer_spec.model_type, model.trainer_spec.unk_id = 1, 2
    model.trainer_spec.pad_id, model.trainer_spec.eos_id, model.trainer_spec.bos_id = 0, 1, -1
    (folder / "spiece.model").write_bytes(model.SerializeToString())
    (folder / "added_tokens.json").write_text("{}")
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "model_max_length": 16}))


def clip(projected: bool = False, act: str = "quick_gelu") -> Any:
    """A CLIP text encoder."""
    n = 2 * len(LETTERS) + 2
    config = transformers.CLIPTextConfig(vocab_size=n, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, hidden_act=act,
                                         max_position_embeddings=16, projection_dim=WIDTH, bos_token_id=n - 2, eos_token_id=n - 1, pad_token_id=n - 1)
    return (transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel)(config)


def t5() -> Any:
    """A T5 text encoder."""
    return transformers.T5EncoderModel(transformers.T5Config(vocab_size=64, d_model=WIDTH, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
                                                             feed_forward_proj="gated-gelu", tie_word_embeddings=False))


def vae(n_channels: int, n_blocks: int = 2, **config: Any) -> Any:
    """An autoencoder; its pictures are 2 ** (n_blocks - 1) times its latents."""
    return diffusers.AutoencoderKL(block_out_channels=(8,) * n_blocks, down_block_types=("DownEncoderBlock2D",) * n_blocks, norm_num_groups=4,
                                   up_block_types=("UpDecoderBlock2D",) * n_blocks, latent_channels=n_channels, sample_size=16, **config)


def unet(**config: Any) -> Any:
    """A U-Net of two blocks with cross-attention."""
    said = {"cross_attention_dim": WIDTH, "attention_head_dim": 4, "transformer_layers_per_block": 1} | config
    return diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, norm_num_groups=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **said)


NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}  # as Stable Diffusion has it


def stable_diffusion_1(folder: Path) -> None:
    """With its safety checker, whose class is of a module of its own, and the old name of the feature extractor."""
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    checker = StableDiffusionSafetyChecker(transformers.CLIPConfig(text_config=small, vision_config=small | {"image_size": 32, "patch_size": 8}))
    put(folder, "StableDiffusionPipeline", {
        "vae": vae(4), "text_encoder": clip(), "tokenizer": ("CLIPTokenizer", clip_tokenizer), "unet": unet(),
        "scheduler": diffusers.PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, **NOISE),
        "feature_extractor": transformers.CLIPImageProcessor(), "safety_checker": checker},
        index={"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "feature_extractor": ["transformers", "CLIPFeatureExtractor"]})


def stable_diffusion_2(folder: Path) -> None:
    """With v-prediction; `requires_safety_checker` is false and there is none."""
    put(folder, "StableDiffusionPipeline", {
        "vae": vae(4), "text_encoder": clip(act="gelu"), "tokenizer": ("CLIPTokenizer", clip_tokenizer), "feature_extractor": transformers.CLIPImageProcessor(),
        "unet": unet(use_linear_projection=True, upcast_attention=True, attention_head_dim=[2, 4]),
        "scheduler": diffusers.DDIMScheduler(prediction_type="v_prediction", set_alpha_to_one=False, clip_sample=False, **NOISE)},
        index={"safety_checker": [None, None], "requires_safety_checker": False})


def stable_diffusion_xl(folder: Path) -> None:
    """Two text encoders, whose pooled text and the picture's size condition the U-Net beside the text."""
    put(folder, "StableDiffusionXLPipeline", {
        "vae": vae(4, force_upcast=True), "text_encoder": clip(), "text_encoder_2": clip(True, "gelu"), "tokenizer": ("CLIPTokenizer", clip_tokenizer),
        "tokenizer_2": ("CLIPTokenizer", clip_tokenizer), "scheduler": diffusers.EulerDiscreteScheduler(**NOISE),
        "unet": unet(cross_attention_dim=2 * WIDTH, addition_embed_type="text_time", addition_time_embed_dim=8, use_linear_projection=True,
                     projection_class_embeddings_input_dim=WIDTH + 6 * 8)},
        index={"force_zeros_for_empty_prompt": True, "add_watermarker": None})


def stable_diffusion_3(folder: Path) -> None:
    """A transformer on a flow, three text encoders, the third in shards."""
    transformer = diffusers.SD3Transformer2DModel(sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
                                                  num_attention_heads=4, joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=2 * WIDTH,
                                                  pos_embed_max_size=16)
    large = transformers.T5EncoderModel(transformers.T5Config(vocab_size=64, d_model=64, d_kv=8, d_ff=64, num_layers=2, num_heads=4))
    put(folder, "StableDiffusion3Pipeline", {
        "vae": vae(4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06), "transformer": transformer,
        "text_encoder": clip(True), "text_encoder_2": clip(True, "gelu"), "text_encoder_3": large,
        "tokenizer": ("CLIPTokenizer", clip_tokenizer), "tokenizer_2": ("CLIPTokenizer", clip_tokenizer), "tokenizer_3": ("T5TokenizerFast", t5_tokenizer),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)})


def pixart(folder: Path) -> None:
    """A transformer on noise, under the class name of its first release; it knows pictures of 256 px and up only."""
    transformer = diffusers.PixArtTransformer2DModel(num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=32,
                                                     cross_attention_dim=16, caption_channels=WIDTH, use_additional_conditions=False)
    put(folder, "PixArtAlphaPipeline", {
        "vae": vae(4, 4), "transformer": transformer, "text_encoder": t5(), "tokenizer": ("T5Tokenizer", t5_tokenizer),
        "scheduler": diffusers.DPMSolverMultistepScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)},
        index={"transformer": ["diffusers", "Transformer2DModel"]})


def flux(folder: Path) -> None:
    """A transformer on a flow whose guidance is an input: one evaluation a step."""
    transformer = diffusers.FluxTransformer2DModel(patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
                                                   num_attention_heads=2, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, guidance_embeds=True,
                                                   axes_dims_rope=(4, 4, 8))
    put(folder, "FluxPipeline", {
        "vae": vae(4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1), "transformer": transformer, "text_encoder": clip(),
        "text_encoder_2": t5(), "tokenizer": ("CLIPTokenizer", clip_tokenizer), "tokenizer_2": ("T5TokenizerFast", t5_tokenizer),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)})


KINDS: dict[str, Callable[[Path], None]] = {
    "sd1": stable_diffusion_1, "sd2_v": stable_diffusion_2, "sdxl": stable_diffusion_xl, "sd3": stable_diffusion_3, "pixart": pixart, "flux": flux}


def put(folder: Path, pipeline: str, parts: dict[str, Any], index: dict[str, Any] | None = None) -> None:
    """Save the parts below a model_index.json; a tokenizer is its class and what writes its files. T5 comes in shards, as its releases do."""
    said: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.30.0"}
    for name, part in sorted(parts.items()):
        if isinstance(part, tuple):
            said[name] = ["transformers", part[0]]
            part[1](folder / name)
            continue
        said[name] = [type(part).__module__.split(".")[0], type(part).__name__]
        part.save_pretrained(folder / name, **({"max_shard_size": "40KB"} if isinstance(part, transformers.T5EncoderModel) else {}))
    (folder / "model_index.json").write_text(json.dumps(said | (index or {}), indent=2))


def made(kind: str, folder: Path, seed: int = 0) -> Path:
    """A release of this kind."""
    torch.manual_seed(seed)
    with torch.enable_grad():
        KINDS[kind](folder)
    return folder


def put_lora(release: Path, folder: Path, strength: float = 1.0) -> Path:
    """A LoRA of a release's U-Net or transformer in diffusers' layout: pytorch_lora_weights.safetensors; large, so that it is seen."""
    import peft

    unchecked = {"safety_checker": None} if (release / "safety_checker").is_dir() else {}
    pipe = diffusers.DiffusionPipeline.from_pretrained(release, use_safetensors=True, **unchecked)
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    torch.manual_seed(1)
    denoiser.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_lora_weights=False))
    weights = {k: strength * v for k, v in peft.get_peft_model_state_dict(denoiser).items()}
    name = "unet_lora_layers" if hasattr(pipe, "unet") else "transformer_lora_layers"
    shutil.rmtree(folder, ignore_errors=True)
    type(pipe).save_lora_weights(str(folder), **{name: weights}, safe_serialization=True)
    return folder
