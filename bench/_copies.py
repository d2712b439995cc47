"""Counting the copies of pictures: Eidetic's stages beside what a user would pick instead, on one folder of planted copies."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image, ImageFilter

from tasks import _embedders, _pictures
from tests import planted_copies

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("inputs", "images", "image_embeddings", "duplicates")
SHARE = 10  # one picture in so many has a copy


def composed(n: int, seed: int) -> list[tuple[str, Image.Image]]:
    """n pictures of 128 px: two emoji on a background of smooth noise, no two alike."""
    rng, drawn = np.random.default_rng(seed), planted_copies.emoji()
    made = []
    for number in range(n):
        noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((128, 128), Image.Resampling.BICUBIC)
        texture = Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)).filter(ImageFilter.GaussianBlur(1.5))
        picture = Image.blend(noise, texture, 0.25)
        for which in rng.integers(0, len(drawn), 2).tolist():
            side = int(rng.integers(40, 80))
            emoji = drawn[which][1].resize((side, side))
            mask = emoji.convert("L").point(lambda level: 255 if level < 245 else 0)
            picture.paste(emoji, tuple(rng.integers(0, 128 - side, 2).tolist()), mask)
        made.append((f"picture {number}", picture))
    return made


def written(folder: Path, rows: list[planted_copies.Planted]) -> None:
    """The set as a folder of files."""
    folder.mkdir(parents=True)
    for row in rows:
        (folder / row.name).write_bytes(row.data)


def pairs_of(groups: list[list[str]]) -> set[tuple[str, str]]:
    """Pairs of names in one group."""
    return {(a, b) for group in groups for a in group for b in group if a < b}


def eidetic(folder: Path) -> dict[str, Any]:
    """Groups, seconds by stage and peak memory of the largest stage."""
    project = folder.with_name("project")
    project.mkdir()
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["training_set"], params["releases"] = {"members": {"format": "image_folder", "path": str(folder)}, "held_out": None}, {}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    seconds, peak = {}, 0
    for stage in STAGES:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", f"tasks.{stage}"], cwd=project, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{stage} failed in {project}")
        seconds[stage], peak = time.perf_counter() - start, max(peak, used.ru_maxrss)
    names = {r["image_id"]: r["key"] for r in pq.read_table(project / "data" / "images" / "images.parquet", columns=["image_id", "key"]).to_pylist()}
    groups: dict[int, list[str]] = {}
    for row in pq.read_table(project / "data" / "duplicates" / "duplicates.parquet", columns=["image_id", "cluster_id"]).to_pylist():
        groups.setdefault(row["cluster_id"], []).append(names[row["image_id"]])
    return {"groups": list(groups.values()), "seconds": sum(seconds.values()), "peak_gb": peak / 2**20, "by_stage": seconds}


def peer(tool: str, interpreter: str, folder: Path) -> dict[str, Any]:
    """What the tool finds, by an interpreter that has it."""
    done = subprocess.run([interpreter, str(ROOT / "bench" / "_peers.py"), tool, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{tool}: {done.stderr[-500:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measured(n: int, peers: dict[str, str], seed: int = 0) -> list[dict[str, Any]]:
    """A row per tool: n originals, one copy for every ten, of ten kinds; peers = tool: interpreter."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, rows = Path(temporary) / "pictures", planted_copies.planted(seed, n, n // SHARE // 10, originals=composed(n, seed))
        written(folder, rows)
        found = {"Eidetic": eidetic(folder)} | {tool: peer(tool, interpreter, folder) for tool, interpreter in peers.items()}
    table = []
    for tool, said in found.items():
        spent = {"n": len(rows), "tool": tool, "seconds": said["seconds"], "peak_gb": said["peak_gb"], "by_stage": said.get("by_stage")}
        table.append(spent | judged(rows, pairs_of(said["groups"])))
    return table


def of_emoji(seed: int) -> list[dict[str, Any]]:
    """Two rows: 1,800 emoji and 20 copies of each of ten kinds as Eidetic counts them, and by descriptor alone at its best cut."""
    rows = planted_copies.planted(seed)
    with tempfile.TemporaryDirectory() as temporary:
        written(Path(temporary) / "pictures", rows)
        found = eidetic(Path(temporary) / "pictures")
    vectors = _embedders.embedder("sscd_distilled").descriptors((_pictures.canonical(row.data) for row in rows), 64)
    names, cosine = [row.name for row in rows], np.triu(vectors @ vectors.T, 1)
    alone = []
    for cut in np.arange(0.5, 1, 0.01).round(2).tolist():
        pairs = {(min(names[a], names[b]), max(names[a], names[b])) for a, b in np.argwhere(cosine >= cut).tolist()}
        alone.append({"tool": f"SSCD alone, from {cut} (seed {seed})", "seconds": math.nan, "peak_gb": math.nan} | judged(rows, pairs))
    best = max(alone, key=lambda row: row["precision"] * row["recall"] / max(row["precision"] + row["recall"], 1e-9))
    ours = {"tool": f"Eidetic (seed {seed})", "seconds": found["seconds"], "peak_gb": found["peak_gb"]} | judged(rows, pairs_of(found["groups"]))
    return [{"n": len(rows)} | row for row in (ours, best)]


def judged(rows: list[planted_copies.Planted], pairs: set[tuple[str, str]]) -> dict[str, Any]:
    """Precision and recall over the kinds that Eidetic promises, and of each kind the share of copies that are found with an original."""
    originals: dict[int, list[str]] = {}
    for row in rows:
        if not row.alteration:
            originals.setdefault(row.family, []).append(row.name)
    every = {}
    for kind in planted_copies.PROMISED | planted_copies.BESIDE:
        copies = [row for row in rows if row.alteration == kind]
        every[kind] = sum(any((min(row.name, name), max(row.name, name)) in pairs for name in originals[row.family]) for row in copies) / len(copies)
    precision, recall = planted_copies.precision_and_recall(rows, pairs, set(planted_copies.PROMISED))
    return {"precision": precision, "recall": recall, "by_alteration": every}


def report(table: list[dict[str, Any]]) -> str:
    """As Markdown."""
    names = list(planted_copies.PROMISED | planted_copies.BESIDE)
    lines = ["| pictures | tool | seconds | peak GB | pair precision | pair recall | " + " | ".join(name.replace("_", " ") for name in names) + " |",
             "|---|---|---|---|---|---|" + "---|" * len(names)]
    for row in table:
        first = f"| {row['n']:,} | {row['tool']} | {row['seconds']:.0f} | {row['peak_gb']:.2f} | {row['precision']:.3f} | {row['recall']:.3f} | "
        lines.append(first + " | ".join(f"{row['by_alteration'][name]:.2f}" for name in names) + " |")
    stages = [f"{row['n']:,} pictures: " + ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in row["by_stage"].items())
              for row in table if row.get("by_stage")]
    return "\n".join([*lines, "", *stages])
