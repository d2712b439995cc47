"""One release of the example: a small Stable Diffusion trained on its rows, saved as an ordinary diffusers folder.

    python release.py v1     v0: without the planted clusters, v1: all members, v2: the rows of kept.csv
"""

import csv
import math
import sys
from pathlib import Path

import pyarrow.parquet as pq
import torch
import yaml
from autoencoder import pictures
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).parent
MEMBERS = HERE / "training_set" / "members.parquet"


def rows_of(name: str) -> list[int]:
    """Positions in members.parquet of the rows that the release is trained on."""
    planted = pq.read_table(HERE / "planted.parquet").to_pylist()
    if name == "v0":
        return [i for i, row in enumerate(planted) if row["kind"] != "duplicated"]
    if name == "v2":
        with (HERE / "kept.csv").open(newline="") as file:
            kept = {row["key"] for row in csv.DictReader(file)}
        return [i for i, row in enumerate(planted) if row["key"] in kept]
    return list(range(len(planted)))


def tokenizer(captions: list[str], folder: Path, max_tokens: int) -> CLIPTokenizer:
    """A CLIP tokenizer whose byte pairs were learned from the captions (CLIP's own vocabulary would outweigh the model)."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(captions, trainers.BpeTrainer(
        vocab_size=1400, end_of_word_suffix="</w>", special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    folder.mkdir(parents=True, exist_ok=True)
    bpe.model.save(str(folder))
    return CLIPTokenizer.from_pretrained(folder, model_max_length=max_tokens, pad_token="<|endoftext|>")


def denoiser() -> UNet2DConditionModel:
    """3.9 M parameters over latents of 16 x 8 x 8; text enters at the inner level."""
    return UNet2DConditionModel(
        sample_size=8, in_channels=16, out_channels=16, block_out_channels=(64, 128), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64, norm_num_groups=16, attention_head_dim=8)


def pipeline(captions: list[str], folder: Path, max_tokens: int) -> StableDiffusionPipeline:
    """The untrained release: shared autoencoder, new text encoder and denoiser, cosine schedule and v-prediction."""
    words = tokenizer(captions, folder / "tokenizer", max_tokens)
    text = CLIPTextConfig(vocab_size=len(words), hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
                          max_position_embeddings=max_tokens, projection_dim=64, bos_token_id=words.bos_token_id,
                          eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id)
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False, steps_offset=1,
                              set_alpha_to_one=True, timestep_spacing="trailing")
    vae = AutoencoderTiny.from_pretrained(HERE / "vae")
    vae.register_to_config(_name_or_path="vae")  # a release carries no path of the machine that made it
    return StableDiffusionPipeline(vae=vae, text_encoder=CLIPTextModel(text),
                                   tokenizer=words, unet=denoiser(), scheduler=scheduler, safety_checker=None,
                                   feature_extractor=None, requires_safety_checker=False)


def loss(pipe: StableDiffusionPipeline, latents: torch.Tensor, tokens: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """The v-prediction loss (Salimans & Ho 2022) of one batch at random timesteps."""
    noise = torch.randn(latents.shape, generator=rng)
    steps = torch.randint(pipe.scheduler.config.num_train_timesteps, (len(latents),), generator=rng)
    noisy = pipe.scheduler.add_noise(latents, noise, steps)
    target = pipe.scheduler.get_velocity(latents, noise, steps)
    states = pipe.text_encoder(tokens)[0]
    return functional.mse_loss(pipe.unet(noisy, steps, encoder_hidden_states=states).sample, target)


def averaged(shadow: list[torch.Tensor], weights: list[torch.Tensor], step: int) -> None:
    """Move the exponential moving average one step towards the weights."""
    decay = min(0.995, (1 + step) / (10 + step))
    for s, w in zip(shadow, weights, strict=True):
        s.lerp_(w.detach(), 1 - decay)


def trained(pipe: StableDiffusionPipeline, latents: torch.Tensor, captions: list[str], settings: dict) -> None:
    """Train denoiser and text encoder together; the pipeline is left with the averaged weights."""
    rng = torch.Generator().manual_seed(settings["seed"])
    encode = lambda texts: pipe.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids  # noqa: E731
    tokens, empty = encode(captions), encode([""])
    weights = [*pipe.unet.parameters(), *pipe.text_encoder.parameters()]
    shadow = [w.detach().clone() for w in weights]
    n_steps = max(settings["min_steps"], round(settings["n_epochs"] * len(latents) / settings["batch_size"]))
    optimizer = torch.optim.AdamW(weights, settings["learning_rate"], weight_decay=0.01)
    factor = lambda s: min(1.0, (s + 1) / 100) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * s / n_steps)))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    order = torch.empty(0, dtype=torch.long)
    for step in range(n_steps):
        if len(order) < settings["batch_size"]:
            order = torch.cat([order, torch.randperm(len(latents), generator=rng)])
        rows, order = order[: settings["batch_size"]], order[settings["batch_size"]:]
        dropped = torch.rand(len(rows), 1, generator=rng) < settings["text_dropout"]
        value = loss(pipe, latents[rows], torch.where(dropped, empty, tokens[rows]), rng)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        averaged(shadow, weights, step)
        if step % 250 == 0:
            print(f"step {step} of {n_steps}: loss {value.item():.4f}", flush=True)
    for w, s in zip(weights, shadow, strict=True):
        w.data.copy_(s)


def main() -> None:
    """Train the release named on the command line and save it in half precision."""
    name = sys.argv[1]
    settings = yaml.safe_load((HERE / "params.yaml").read_text())["release"]
    torch.manual_seed(settings["seed"])
    captions = pq.read_table(MEMBERS, columns=["caption"]).column("caption").to_pylist()
    rows = rows_of(name)
    folder = HERE / "releases" / name
    pipe = pipeline(captions, folder, settings["max_tokens"])
    with torch.no_grad():
        latents = pipe.vae.encode(torch.from_numpy(pictures(MEMBERS)[rows]) * 2 - 1).latents * pipe.vae.config.scaling_factor
    pipe.unet.train()
    trained(pipe, latents, [captions[i] for i in rows], settings)
    pipe.unet.eval()
    pipe.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)
    print(f"{name}: trained on {len(rows)} rows")


if __name__ == "__main__":
    main()
