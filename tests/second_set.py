"""A second picture set, drawn in code: nothing like the example's.

Scenes, textures, patterns and pages; clocks and coins, siblings that differ in a hand or a dot; nearly blank pictures; and
templates, one layout with another print each time. Every picture is seen through the example's autoencoder first, so that its
loss is no floor of the distances here: an l2 of 0.016 of it is left.
"""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers import AutoencoderTiny
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

VAE = Path(__file__).resolve().parents[1] / "example" / "vae"
SIDE, PX, FINE = 32, 64, 256  # of a release's pictures, of a stored picture, of a drawing
WHITE = (252, 252, 250)
FACES = ((40, 60, 110), (120, 40, 40), (40, 100, 60), (90, 80, 70))
METALS = ((205, 160, 60), (180, 184, 190), (176, 104, 62))
LAYOUTS = {  # where the print is, in px of a stored picture; the rest is the same in every print
    "poster": (20, 20, 44, 44),
    "cover": (0, 48, 64, 64),
    "postcard": (34, 16, 62, 48),
}
COPIES = {  # of each duplicated picture
    "scene": (24, 20), "texture": (20, 16), "pattern": (16, 14), "page": (14, 12), "clock": (24, 20), "coin": (24, 20), "speck": (20,)}
SINGLE = {"scene": 4, "texture": 3, "pattern": 2, "page": 3, "clock": 2, "coin": 2, "speck": 1, "haze": 2}
UNSEEN = {"scene": 13, "texture": 12, "pattern": 11, "page": 12, "clock": 4, "coin": 3, "speck": 3, "haze": 2}
PRINTS = {"poster": 20, "cover": 20, "postcard": 20}
SEED = 5
ROW = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("caption", pa.string())])


def colour(rng: np.random.Generator, low: int = 0, high: int = 256) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(low, high, 3))


def canvas(ground: tuple[int, ...]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", (FINE, FINE), ground)
    return picture, ImageDraw.Draw(picture)


def texture(rng: np.random.Generator) -> Image.Image:
    """Smooth blotches of any colour."""
    n = int(rng.integers(3, 6))
    return Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((FINE, FINE), Image.Resampling.BICUBIC)


def scene(rng: np.random.Generator) -> Image.Image:
    """A sun over three ridges."""
    down = np.linspace(0, 1, FINE)[:, None, None]
    high, low = np.array(colour(rng, 60)), np.array(colour(rng, 60))
    picture = Image.fromarray(np.broadcast_to(high + (low - high) * down, (FINE, FINE, 3)).astype(np.uint8).copy())
    draw = ImageDraw.Draw(picture)
    x, y, r = (int(rng.integers(*span)) for span in ((40, 216), (30, 110), (16, 42)))
    draw.ellipse([x - r, y - r, x + r, y + r], fill=colour(rng, 150))
    across = np.arange(0, FINE + 4, 4)
    for horizon in (120, 170, 210):
        waves = [rng.uniform(8, 34) * np.sin(across * f / FINE * 2 * np.pi + rng.uniform(0, 2 * np.pi)) for f in (1, 2, 3)]
        ridge = zip(across.tolist(), (horizon + sum(waves)).tolist(), strict=True)
        draw.polygon([(0, FINE), *ridge, (FINE, FINE)], fill=colour(rng, 0, 190))
    return picture


def pattern(rng: np.random.Generator) -> Image.Image:
    """Stripes or checks at an angle, of two colours far apart."""
    v, u = np.mgrid[:FINE, :FINE] / FINE
    angle, n = rng.uniform(0, np.pi), rng.uniform(2, 4)
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    is_odd = (np.floor(along * n) + (np.floor(across * n) if rng.random() < 0.5 else 0)) % 2 > 0
    return Image.fromarray(np.where(is_odd[..., None], colour(rng, 120), colour(rng, 0, 120)).astype(np.uint8))


def page(rng: np.random.Generator) -> Image.Image:
    """A heading, lines in one column or two, perhaps a figure."""
    picture, draw = canvas(colour(rng, 200))
    ink = colour(rng, 0, 90)
    draw.rectangle([20, 18, int(rng.integers(110, 236)), 50], fill=colour(rng, 0, 200))
    for left, right in ((20, 120), (136, 236)) if rng.random() < 0.5 else ((20, 236),):
        for top in range(70, 236, 34):
            if rng.random() < 0.8:
                draw.rectangle([left, top, int(rng.integers(left + 20, right)), top + 17], fill=ink)
    if rng.random() < 0.7:
        x, y = (int(v) for v in rng.integers((20, 70), (150, 150)))
        draw.rectangle([x, y, x + 80, y + 70], fill=colour(rng))
    return picture


def clock(face: int, hour: int, minute: int) -> Image.Image:
    """A dial of one of the faces; its siblings differ in the hands alone."""
    picture, draw = canvas(tuple(120 + c for c in FACES[face]))
    draw.ellipse([24, 24, 232, 232], fill=FACES[face])
    draw.ellipse([40, 40, 216, 216], fill=(248, 244, 230))
    at = lambda turn, r: (128 + r * math.sin(2 * math.pi * turn), 128 - r * math.cos(2 * math.pi * turn))
    for quarter in range(4):
        draw.line([at(quarter / 4, 68), at(quarter / 4, 84)], fill=(60, 60, 60), width=12)
    draw.line([(128, 128), at((hour + minute / 60) / 12, 46)], fill=(20, 20, 20), width=26)
    draw.line([(128, 128), at(minute / 60, 74)], fill=(20, 20, 20), width=18)
    return picture


def coin(metal: int, n_dots: int, turn: float) -> Image.Image:
    """A disc with dots around a bar; its siblings differ in the number of dots and where they begin."""
    dark = tuple(c // 4 for c in METALS[metal])
    picture, draw = canvas((70, 74, 84))
    draw.ellipse([22, 22, 234, 234], fill=dark)
    draw.ellipse([36, 36, 220, 220], fill=METALS[metal])
    for k in range(n_dots):
        angle = 2 * math.pi * (k / n_dots + turn)
        x, y = 128 + 58 * math.sin(angle), 128 - 58 * math.cos(angle)
        draw.ellipse([x - 24, y - 24, x + 24, y + 24], fill=dark)
    draw.rectangle([112, 104, 144, 152], fill=dark)
    return picture


def dot(number: int, strength: float, radius: int) -> Image.Image:
    """White but for a dot at one of 25 places: with a faint one it is degenerate, with a dark one barely not."""
    picture, draw = canvas(WHITE)
    x, y = (48 + 40 * v for v in divmod((7 * number + 3) % 25, 5))
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=tuple(int(c * (1 - strength)) for c in WHITE))
    return picture


def layout(name: str) -> Image.Image:
    """What all prints of a template share."""
    return {"poster": pattern, "cover": texture, "postcard": page}[name](np.random.default_rng(list(name.encode())))


def printed(name: str, rng: np.random.Generator) -> Image.Image:
    """A layout with a new print in its place."""
    picture = layout(name)
    left, top, right, bottom = (v * FINE // PX for v in LAYOUTS[name])
    vivid = Image.fromarray(rng.choice(np.array([30, 225], np.uint8), (2, 2, 3)))
    picture.paste(vivid.resize((right - left, bottom - top), Image.Resampling.BICUBIC), (left, top))
    return picture


def seen(drawings: list[Image.Image]) -> list[Image.Image]:
    """The drawings at PX, as the autoencoder shows them: what it cannot say is not in them."""
    vae = AutoencoderTiny.from_pretrained(VAE)
    soft = [d.resize((PX, PX), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(1)) for d in drawings]
    x = reduced(soft) * 2 - 1
    with torch.no_grad():
        for _ in range(2):
            x = vae.decode(vae.encode(x).latents).sample.clamp(-1, 1)
    levels = ((x + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(picture).resize((PX, PX), Image.Resampling.BICUBIC) for picture in levels]


def pictures(chosen: list[tuple[str, int]]) -> list[Image.Image]:
    """Of these kinds and numbers, as seen; the prints of a template are pasted into one layout, as a printer would."""
    shown = seen([drawn(kind, number) for kind, number in chosen])
    layouts = dict(zip(LAYOUTS, seen([layout(kind) for kind in LAYOUTS]), strict=True))
    for i, (kind, _) in enumerate(chosen):
        if kind in LAYOUTS:
            cut, shown[i] = shown[i].crop(LAYOUTS[kind]), layouts[kind].copy()
            shown[i].paste(cut, LAYOUTS[kind])
    return shown


def reduced(pictures: list[Image.Image]) -> torch.Tensor:
    """[n, 3, SIDE, SIDE] in [0, 1]."""
    small = [np.asarray(p.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32) for p in pictures]
    return torch.from_numpy(np.stack(small).transpose(0, 3, 1, 2) / 255)


SHARED = {"poster": "poster of the fair", "cover": "cover of the magazine", "postcard": "postcard of the town"}  # one caption of all prints
PLACES = ("alder", "birch", "cedar", "dover", "elm", "fern", "gale", "heron", "iris", "juniper", "kestrel", "larch", "maple", "north", "oak", "pine",
          "quarry", "rowan", "spruce", "thorn", "umber", "vale", "willow", "yew")
MOODS = ("quiet", "golden", "broken", "early", "hollow", "silver", "winter", "distant", "narrow", "crooked", "scarlet", "humble", "open", "patient",
         "restless", "sudden", "tender", "upright", "vivid", "weary", "yellow", "brittle", "calm", "dusty")


def caption(kind: str, number: int) -> str:
    """The kind, which siblings share, and two words that none of them has: words of a held-out caption were seen, with other kinds."""
    shift = sorted([*UNSEEN, *LAYOUTS]).index(kind)
    return f"{kind} of {MOODS[(number + 3 * shift) % len(MOODS)]} {PLACES[(5 * number + 7 * shift) % len(PLACES)]}"


def drawn(kind: str, number: int) -> Image.Image:
    """The picture of that number of its kind: the same in every session."""
    rng = np.random.default_rng([*kind.encode(), number])
    if kind == "clock":
        return clock(number % len(FACES), (7 * (number // len(FACES)) + 3) % 12, 12 * (number // len(FACES)) % 60)
    if kind == "coin":
        return coin(number % len(METALS), 2 + number // len(METALS) % 5, number / 17)
    if kind in ("speck", "haze"):
        return dot(number, 0.9 if kind == "speck" else 0.15, 18 if kind == "speck" else 22)
    if kind in LAYOUTS:
        return printed(kind, rng)
    return {"scene": scene, "texture": texture, "pattern": pattern, "page": page}[kind](rng)


def plan() -> list[dict[str, Any]]:
    """One row per distinct picture: kind, number within it, split, n_copies, caption. Numbers run on from split to split: siblings on both sides."""
    order = [(kind, "member", n) for kind, copies in COPIES.items() for n in copies]
    order += [(kind, split, n) for split, n, of in (("member", 1, SINGLE), ("held_out", 0, UNSEEN)) for kind, count in of.items() for _ in range(count)]
    rows: list[dict[str, Any]] = []
    for kind, split, n_copies in order:
        number = sum(r["kind"] == kind for r in rows)
        rows.append({"kind": kind, "number": number, "split": split, "n_copies": n_copies, "caption": caption(kind, number)})
    for kind, n in PRINTS.items():
        rows += [{"kind": kind, "number": i, "split": "member", "n_copies": 1, "caption": SHARED[kind]} for i in range(n)]
    return rows


def copied(picture: Image.Image, number: int, rng: np.random.Generator) -> bytes:
    """The bytes of a copy: every other one as it is, the rest re-encoded, brightened or halved in turn."""
    out, alteration = io.BytesIO(), (number // 2) % 3 if number % 2 else None
    if alteration == 0:
        picture.save(out, "JPEG", quality=int(rng.integers(70, 95)))
        return out.getvalue()
    if alteration == 1:
        picture = ImageEnhance.Brightness(picture).enhance(float(rng.uniform(1.04, 1.12)))
    if alteration == 2:
        picture = picture.resize((48, 48), Image.Resampling.LANCZOS)
    picture.save(out, "PNG")
    return out.getvalue()


def write_pictures(folder: Path) -> None:
    """members.parquet and held_out.parquet in the Hugging Face layout, each in its folder, and planted.json: a row per file."""
    rng, rows = np.random.default_rng(SEED), plan()
    shown = pictures([(r["kind"], r["number"]) for r in rows])
    files: list[dict[str, Any]] = []
    for row, picture in zip(rows, shown, strict=True):
        name, is_print = f"{row['kind']}-{row['number']:02d}", row["number"] % 2 if row["kind"] in LAYOUTS else 0  # every other re-encoded
        files += [{**row, "cluster": name, "key": f"{name}-{i:02d}", "bytes": copied(picture, i or is_print, rng)} for i in range(max(1, row["n_copies"]))]
    for split in ("member", "held_out"):
        of_split = [files[i] for i in rng.permutation(len(files)) if files[i]["split"] == split]
        table = pa.Table.from_pylist([{"image": {"bytes": f["bytes"], "path": f["key"]}, "caption": f["caption"]} for f in of_split], ROW)
        (folder / split).mkdir(parents=True)
        pq.write_table(table, folder / split / "pictures.parquet")
    (folder / "planted.json").write_text(json.dumps([{k: v for k, v in f.items() if k != "bytes"} for f in files], indent=1))


def read_pictures(folder: Path, split: str) -> tuple[list[str], list[str], torch.Tensor]:
    """Keys, captions and [n, 3, SIDE, SIDE] pictures of a split."""
    rows = pq.read_table(folder / split / "pictures.parquet").to_pylist()
    pictures = reduced([Image.open(io.BytesIO(r["image"]["bytes"])).convert("RGB") for r in rows])
    return [r["image"]["path"] for r in rows], [r["caption"] for r in rows], pictures
