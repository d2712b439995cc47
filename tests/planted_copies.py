"""A training set of emoji with planted copies, altered in ten ways by PIL: the truth that duplicate counting is held to."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageEnhance

ROOT = Path(__file__).resolve().parents[1]
WHITE = (255, 255, 255)
Alteration = Callable[[Image.Image, np.random.Generator], Image.Image]


def _cropped(share: float) -> Alteration:
    def alter(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        cut = max(1, round(share * picture.width))
        left, top = (int(rng.integers(0, cut + 1)) for _ in range(2))
        return picture.crop((left, top, left + picture.width - cut, top + picture.height - cut))

    return alter


def _rotated(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.rotate(3 * int(rng.choice([-1, 1])), Image.Resampling.BICUBIC, fillcolor=WHITE if rng.random() < 0.5 else None)


def _watermarked(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    made = picture.copy()
    ImageDraw.Draw(made).rectangle((0, 0.8 * made.height, made.width, 0.92 * made.height), fill=(20, 20, 20))
    return made


def _padded(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    made = Image.new("RGB", (picture.width * 5 // 4, picture.height * 5 // 4), WHITE)
    made.paste(picture, (picture.width // 8, picture.height // 8))
    return made


PROMISED: dict[str, Alteration] = {
    "reencoded": lambda picture, rng: picture,  # saved as JPEG of quality 30
    "resized": lambda picture, rng: picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS),
    "brighter": lambda picture, rng: ImageEnhance.Contrast(ImageEnhance.Brightness(picture).enhance(1.15)).enhance(1.1),
    "cropped_5pct": _cropped(0.05),
    "rotated_3deg": _rotated,
}
BESIDE: dict[str, Alteration] = {
    "watermarked": _watermarked,
    "mirrored": lambda picture, rng: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "cropped_10pct": _cropped(0.10),
    "cropped_25pct": _cropped(0.25),
    "padded": _padded,
}


@dataclass(frozen=True)
class Planted:
    """One picture of the set: its file's bytes, and what is true of it."""

    name: str
    data: bytes
    caption: str
    family: int  # pictures of one family are copies of each other
    alteration: str  # "" for an original


def encoded(picture: Image.Image, **jpeg: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG" if jpeg else "PNG", **jpeg)
    return out.getvalue()


def emoji() -> list[tuple[str, Image.Image]]:
    """One emoji of each family over white, with its name; 64 x 64 px."""
    found: dict[str, tuple[str, Image.Image]] = {}
    for row in pq.read_table(ROOT / "example" / "noto_emoji.parquet").to_pylist():
        if row["base_codepoints"] not in found:
            drawn = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGBA")
            found[row["base_codepoints"]] = (row["caption"], Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB"))
    return list(found.values())


def planted(seed: int, n: int = 1800, n_copies: int = 20, originals: list[tuple[str, Image.Image]] | None = None) -> list[Planted]:
    """n originals, emoji by default, and n_copies altered ones of each alteration, of different originals. Equal pixels are one family."""
    rng = np.random.default_rng(seed)
    originals = originals or emoji()
    chosen = [originals[i] for i in rng.permutation(len(originals))[:n]]
    first: dict[bytes, int] = {}
    family = [first.setdefault(picture.tobytes(), i) for i, (_, picture) in enumerate(chosen)]
    made = [Planted(f"{i:05d}.png", encoded(picture), name, family[i], "") for i, (name, picture) in enumerate(chosen)]
    alterations = PROMISED | BESIDE
    sources = rng.choice(n, n_copies * len(alterations), replace=n < n_copies * len(alterations))
    for j, source in enumerate(sources.tolist()):
        alteration = list(alterations)[j % len(alterations)]
        name, picture = chosen[source]
        altered = alterations[alteration](picture, rng)
        is_jpeg = alteration == "reencoded"
        made.append(Planted(f"copy_{j:05d}.{'jpg' if is_jpeg else 'png'}", encoded(altered, quality=30) if is_jpeg else encoded(altered), name,
                            family[source], alteration))
    return made


def as_parquet(rows: list[Planted], path: Path) -> None:
    """Write the set as Hugging Face does: struct<bytes, path> and a caption."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": [{"bytes": row.data, "path": row.name} for row in rows], "caption": [row.caption for row in rows]}), path,
                   row_group_size=512)


def precision_and_recall(rows: list[Planted], found: set[tuple[str, str]], alterations: set[str]) -> tuple[float, float]:
    """Of pairs (name, later name) found, the share that are of one family; of the pairs of originals and copies altered so, the share found.

    Pairs with a picture altered otherwise count in neither.
    """
    of = {row.name: row for row in rows if row.alteration in alterations | {""}}
    names = sorted(of)
    by_family: dict[int, list[str]] = {}
    for name in names:
        by_family.setdefault(of[name].family, []).append(name)
    true = {(a, b) for group in by_family.values() for i, a in enumerate(group) for b in group[i + 1:]}
    claimed = {pair for pair in found if pair[0] in of and pair[1] in of}
    return len(claimed & true) / max(len(claimed), 1), len(claimed & true) / max(len(true), 1)
