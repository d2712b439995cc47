"""The autoencoder that v0, v1 and v2 share: 32 px pictures to latents of 16 x 8 x 8, trained on pictures of neither split's test.

It never sees a planted picture, a held-out image or anything within `min_l2` of one, so that what v0 cannot draw
is not in its decoder either. Writes vae (a diffusers AutoencoderTiny folder).
"""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import yaml
from diffusers import AutoencoderTiny
from PIL import Image
from torch.nn import functional

HERE = Path(__file__).parent


def pictures(path: Path) -> np.ndarray:
    """[n, 3, 32, 32] float32 in [0, 1] of a Parquet file of pictures."""
    rows = pq.read_table(path, columns=["image"]).column("image").to_pylist()
    opened = (Image.open(io.BytesIO(r["bytes"])).convert("RGB").resize((32, 32), Image.Resampling.BOX) for r in rows)
    return np.stack([np.asarray(p, np.float32).transpose(2, 0, 1) / 255 for p in opened])


def ordinary(min_l2: float) -> np.ndarray:
    """The pictures that are neither planted nor held out nor near one of those."""
    planted = pq.read_table(HERE / "planted.parquet").column("kind").to_numpy(zero_copy_only=False) == "duplicated"
    forbidden = np.concatenate([pictures(HERE / "training_set" / "members.parquet")[planted],
                                pictures(HERE / "held_out" / "held_out.parquet")]).reshape(-1, 3072)
    everything = pictures(HERE / "noto_emoji.parquet")
    nearest = [np.sqrt(((forbidden - x) ** 2).mean(axis=1)).min() for x in everything.reshape(-1, 3072)]
    return everything[np.asarray(nearest) >= min_l2]


def augmented(batch: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """The batch with random flips, zooms, shifts and channel gains, so that any picture is in range of the decoder."""
    n = len(batch)
    zoom = 1 + 0.5 * (torch.rand(n, generator=rng) - 0.6)
    flip = torch.where(torch.rand(n, generator=rng) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = zoom * flip, zoom
    theta[:, :, 2] = 0.3 * (torch.rand(n, 2, generator=rng) - 0.5)
    grid = functional.affine_grid(theta, list(batch.shape), align_corners=False)
    moved = functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)
    gain = 1 + 0.3 * (torch.rand(n, 3, 1, 1, generator=rng) - 0.5)
    return (moved * gain).clamp(0, 1)


def main() -> None:
    """Train and save."""
    settings = yaml.safe_load((HERE / "params.yaml").read_text())
    chosen = settings["autoencoder"]
    torch.manual_seed(chosen["seed"])
    rng = torch.Generator().manual_seed(chosen["seed"])
    x = torch.from_numpy(ordinary(settings["training_set"]["min_l2"]))
    vae = AutoencoderTiny(encoder_block_out_channels=(24, 24, 24), decoder_block_out_channels=(24, 24, 24),
                          num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1), latent_channels=16)
    optimizer = torch.optim.AdamW(vae.parameters(), chosen["learning_rate"], weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, chosen["learning_rate"], chosen["n_steps"], pct_start=0.03)
    for step in range(chosen["n_steps"]):
        batch = augmented(x[torch.randint(len(x), (chosen["batch_size"],), generator=rng)], rng) * 2 - 1
        latents = vae.encode(batch).latents
        noisy = latents + 0.03 * latents.detach().std() * torch.randn(latents.shape, generator=rng)
        loss = (vae.decoder(noisy) - batch).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print(f"step {step} of {chosen['n_steps']}: L1 {loss.item() / 2:.4f}", flush=True)
    vae.eval()
    with torch.no_grad():
        vae.register_to_config(scaling_factor=1 / float(vae.encode(x * 2 - 1).latents.std()))
    vae.save_pretrained(HERE / "vae")


if __name__ == "__main__":
    main()
