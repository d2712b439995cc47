"""Releases of the second picture set: small Stable Diffusions of either prediction type, trained in the test session.

    python -m tests.second_release FOLDER epsilon    (or v_prediction; pictures in FOLDER, by tests.second_set) -> FOLDER/releases

A minute and less on one thread of its own. Duplicated pictures come back, singletons seldom, held-out ones never.
"""

import math
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.second_set import SIDE, VAE, read_pictures

PREDICTIONS = ("epsilon", "v_prediction")
SETTINGS = {"seed": 5, "batch_size": 32, "learning_rate": 3e-3, "text_dropout": 0.1, "max_tokens": 12, "blocks": (48, 64)}
N_STEPS = {"epsilon": 500, "v_prediction": 800}  # until what was duplicated comes back clean enough for its prints to agree with each other
MAX_WEIGHT = {"epsilon": 10.0, "v_prediction": 3.0}  # of a step in the loss, with 1 where there is no noise
GROUPS = {"epsilon": 1, "v_prediction": 4}  # of the norms: over few latent pixels a norm loses amplitude, of which epsilon needs every per cent
SAMPLER = {"n_steps": 8, "guidance_scale": 2.0}


def tokenizer(captions: list[str], folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer, with byte pairs learned from the captions."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.train_from_iterator(captions, trainers.BpeTrainer(
        vocab_size=800, end_of_word_suffix="</w>", special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    folder.mkdir(parents=True, exist_ok=True)
    bpe.model.save(str(folder))
    return CLIPTokenizer.from_pretrained(folder, model_max_length=SETTINGS["max_tokens"], pad_token="<|endoftext|>")


def untrained(captions: list[str], folder: Path, prediction_type: str) -> StableDiffusionPipeline:
    """The layout and schedule of Stable Diffusion 1.x, 1 M parameters."""
    words = tokenizer(captions, folder / "tokenizer")
    text = CLIPTextConfig(vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
                          max_position_embeddings=SETTINGS["max_tokens"], projection_dim=64, bos_token_id=words.bos_token_id,
                          eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id)
    unet = UNet2DConditionModel(
        sample_size=SIDE // 4, in_channels=16, out_channels=16, block_out_channels=SETTINGS["blocks"], layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64, norm_num_groups=GROUPS[prediction_type], attention_head_dim=8)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type,
                              clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    if prediction_type == "epsilon":
        begin_with_the_noise(unet)
    vae = AutoencoderTiny.from_pretrained(VAE)
    vae.register_to_config(_name_or_path="vae")  # no path of this machine: it would be part of the release's digest
    return StableDiffusionPipeline(vae=vae, text_encoder=CLIPTextModel(text), tokenizer=words, unet=unet,
                                   scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def begin_with_the_noise(unet: UNet2DConditionModel) -> None:
    """Set the weights so that the untrained denoiser answers with its input: right at full noise, and what remains to be learned is the picture.

    The input goes as (x, -x) over the outermost skip: their group norms keep its mean, which over 64 latent pixels is no small part of
    the noise, and SiLU(x) - SiLU(-x) = x. Without this an epsilon-prediction takes ten times the steps to have its colours right.
    """
    n, width = unet.config.in_channels, unet.config.block_out_channels[0]
    pairs = torch.eye(n).repeat_interleave(2, dim=0) * torch.tensor([1.0, -1.0]).repeat(n)[:, None]
    last = unet.up_blocks[-1].resnets[-1]
    with torch.no_grad():
        for layer, rows in ((unet.conv_in, 2 * n), (last.conv2, None), (last.conv_shortcut, 2 * n)):
            layer.weight[:rows], layer.bias[:rows] = 0, 0
        unet.conv_in.weight[: 2 * n, :, 1, 1] = pairs
        last.conv_shortcut.weight[: 2 * n, width:width + 2 * n, 0, 0] = torch.eye(2 * n)
        unet.conv_out.weight *= 0.1
        unet.conv_out.bias.zero_()
        unet.conv_out.weight[:, : 2 * n] = 0
        unet.conv_out.weight[:, : 2 * n, 1, 1] = pairs.T


def loss(pipe: StableDiffusionPipeline, latents: torch.Tensor, tokens: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Of one batch: the error of the noise, weighted 1 / alpha_bar up to a bound; the error of v in the same weights."""
    noise = torch.randn(latents.shape, generator=rng)
    steps = torch.randint(pipe.scheduler.config.num_train_timesteps, (len(latents),), generator=rng)
    kind = pipe.scheduler.config.prediction_type
    is_epsilon = kind == "epsilon"
    target = noise if is_epsilon else pipe.scheduler.get_velocity(latents, noise, steps)
    said = pipe.unet(pipe.scheduler.add_noise(latents, noise, steps), steps, encoder_hidden_states=pipe.text_encoder(tokens)[0]).sample
    alpha_bar = pipe.scheduler.alphas_cumprod[steps]
    weight = (1 / alpha_bar).clamp(max=MAX_WEIGHT[kind]) * (1 if is_epsilon else alpha_bar)
    return ((said - target).square().mean(dim=(1, 2, 3)) * weight).mean()


def train(pipe: StableDiffusionPipeline, latents: torch.Tensor, captions: list[str]) -> None:
    """Train denoiser and text encoder; the pipeline is left with the moving average of their weights."""
    rng, n_steps, size = torch.Generator().manual_seed(SETTINGS["seed"]), N_STEPS[pipe.scheduler.config.prediction_type], SETTINGS["batch_size"]
    encoded = lambda texts: pipe.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    tokens, empty = encoded(captions), encoded([""])
    weights = [*pipe.unet.parameters(), *pipe.text_encoder.parameters()]
    average = [w.detach().clone() for w in weights]
    optimizer = torch.optim.AdamW(weights, SETTINGS["learning_rate"], weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1.0, (s + 1) / 50) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * s / n_steps))))
    order = torch.empty(0, dtype=torch.long)
    for step in range(n_steps):
        if len(order) < size:
            order = torch.cat([order, torch.randperm(len(latents), generator=rng)])
        rows, order = order[:size], order[size:]
        is_dropped = torch.rand(size, 1, generator=rng) < SETTINGS["text_dropout"]
        optimizer.zero_grad()
        loss(pipe, latents[rows], torch.where(is_dropped, empty, tokens[rows]), rng).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        torch._foreach_lerp_(average, [w.detach() for w in weights], 1 - min(0.99, (1 + step) / (10 + step)))
    for a, w in zip(average, weights, strict=True):
        w.data.copy_(a)


def write_release(folder: Path, prediction_type: str) -> None:
    """Train on the members, save an ordinary diffusers folder."""
    torch.manual_seed(SETTINGS["seed"])
    _, captions, pictures = read_pictures(folder, "member")
    pipe = untrained(captions, folder / "releases" / prediction_type, prediction_type)
    with torch.no_grad():
        latents = pipe.vae.encode(pictures * 2 - 1).latents * pipe.vae.config.scaling_factor
    pipe.unet.train()
    train(pipe, latents, captions)
    pipe.unet.eval()
    pipe.save_pretrained(folder / "releases" / prediction_type, safe_serialization=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    write_release(Path(sys.argv[1]), sys.argv[2])
