"""The example's training set, made from pictures whose copies we decide: members, held-out images and the planted truth.

Reads noto_emoji.parquet; writes training_set/members.parquet, held_out/held_out.parquet (Hugging Face layout:
`image` = struct<bytes, path>, `caption`) and planted.parquet (which member shows which picture, and how it was altered).
"""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image, ImageEnhance

HERE = Path(__file__).parent
WORDINGS = ("{}", "a picture of {}", "{}, drawn as an icon")  # three captions of one picture
LAYOUTS = {  # picture around the varying region: (left, top, side) of the region in 64 px
    "television": (16, 20, 32),
    "framed picture": (16, 16, 32),
    "mobile phone": (18, 14, 28),
    "t-shirt": (18, 24, 28),
}
ROW = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("caption", pa.string())])


def png(picture: Image.Image) -> bytes:
    """The picture's PNG bytes."""
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


def jpeg(picture: Image.Image, quality: int) -> bytes:
    """The picture's JPEG bytes."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


def cropped(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The picture less two or three pixels in all of each axis (3 to 5 %)."""
    cut = int(rng.integers(2, 4))
    left, top = (int(rng.integers(0, cut + 1)) for _ in range(2))
    return picture.crop((left, top, left + picture.width - cut, top + picture.height - cut))


def altered(picture: Image.Image, alteration: str, rng: np.random.Generator) -> bytes:
    """The picture's bytes after one of the alterations that copies on the web have gone through."""
    if alteration == "exact":
        return png(picture)
    if alteration == "reencoded":
        return jpeg(picture, int(rng.integers(60, 91)))
    if alteration == "resized":
        side = int(rng.integers(40, 57))
        return png(picture.resize((side, side), Image.Resampling.LANCZOS))
    if alteration == "cropped":
        return png(cropped(picture, rng))
    return png(ImageEnhance.Brightness(picture).enhance(float(rng.uniform(1.04, 1.15))))  # brightened


def alterations(n_copies: int, rng: np.random.Generator) -> list[str]:
    """Half of the copies exact, the others altered in turn."""
    kinds = ["reencoded", "resized", "cropped", "brightened"]
    start = int(rng.integers(len(kinds)))
    n_exact = (n_copies + 1) // 2
    return ["exact"] * n_exact + [kinds[(start + i) % 4] for i in range(n_copies - n_exact)]


def pixels(picture: Image.Image) -> np.ndarray:
    """[3072] values in [0, 1] at 32 px, where the example's distances are taken."""
    return np.asarray(picture.resize((32, 32), Image.Resampling.BOX), np.float32).ravel() / 255


def distinct(pictures: list[dict], taken: list[np.ndarray], min_l2: float) -> list[dict]:
    """The pictures in order, without those closer than min_l2 (at 32 px) to one before or to one taken."""
    seen, kept = list(taken), []
    for row in pictures:
        x = pixels(row["picture"])
        if not seen or np.sqrt(np.mean((np.stack(seen) - x) ** 2, axis=1)).min() >= min_l2:
            seen.append(x)
            kept.append(row)
    return kept


def alone(pictures: list[dict], min_l2: float, min_std: float) -> list[dict]:
    """The pictures that are not nearly blank and have no other within min_l2: a copy of one can be told from a sibling."""
    x = np.stack([pixels(r["picture"]) for r in pictures])
    l2 = np.sqrt(np.maximum((x**2).sum(1)[:, None] + (x**2).sum(1) - 2 * x @ x.T, 0) / x.shape[1])
    nearest = (l2 + 2 * np.eye(len(x))).min(axis=1)
    return [r for r, d, std in zip(pictures, nearest, x.std(axis=1), strict=True) if d >= min_l2 and std >= min_std]


def cluster_rows(name: str, picture: Image.Image, n_copies: int, n_captions: int, rng: np.random.Generator) -> list[dict]:
    """One row per copy of a planted picture, the captions in turn."""
    return [
        {"bytes": altered(picture, alteration, rng), "caption": WORDINGS[i % n_captions].format(name),
         "cluster": name, "n_copies": n_copies, "alteration": alteration, "kind": "duplicated"}
        for i, alteration in enumerate(alterations(n_copies, rng))
    ]


def template_rows(layout: str, ground: Image.Image, prints: list[dict]) -> list[dict]:
    """One row per variant: the layout with another print in its region."""
    left, top, side = LAYOUTS[layout]
    rows = []
    for row in prints:
        variant = ground.copy()
        variant.paste(row["picture"].resize((side, side), Image.Resampling.LANCZOS), (left, top))
        rows.append({"bytes": png(variant), "caption": f"{layout} with {row['caption']}", "cluster": f"{layout} with {row['caption']}",
                     "n_copies": 1, "alteration": "exact", "kind": f"template:{layout}"})
    return rows


def written(rows: list[dict], path: Path) -> None:
    """Write rows in the Hugging Face layout."""
    path.parent.mkdir(exist_ok=True)
    table = pa.Table.from_pylist([{"image": {"bytes": r["bytes"], "path": r["path"]}, "caption": r["caption"]} for r in rows], ROW)
    pq.write_table(table, path, compression="zstd")


def members_and_held_out(emoji: list[dict], settings: dict, rng: np.random.Generator) -> tuple[list[dict], list[dict]]:
    """The rows of the two splits: planted clusters first, then templates, singles and, apart, the held-out images."""
    by_name = {r["caption"]: r for r in emoji}
    layouts = [by_name[name] for name in LAYOUTS]
    families = {r["base_codepoints"] for r in layouts}
    order = [emoji[i] for i in rng.permutation(len(emoji)) if emoji[i]["base_codepoints"] not in families]
    toned = [r for r in order if r["codepoints"] != r["base_codepoints"]]
    one_each = list({r["base_codepoints"]: r for r in order if r["codepoints"] == r["base_codepoints"]}.values())
    chosen = distinct(one_each, [pixels(r["picture"]) for r in layouts], settings["min_l2"])

    prints, chosen = chosen[: settings["n_variants"] * len(LAYOUTS)], chosen[settings["n_variants"] * len(LAYOUTS):]
    members = [row for i, layout in enumerate(LAYOUTS)
               for row in template_rows(layout, by_name[layout]["picture"], prints[i * settings["n_variants"]:(i + 1) * settings["n_variants"]])]
    textured = alone(chosen, settings["min_planted_l2"], settings["min_planted_std"])
    for i, n_copies in enumerate(np.repeat(settings["copies"], settings["n_clusters"])):
        row = textured[i]
        members += cluster_rows(row["caption"], row["picture"], int(n_copies), 3 if i % 2 and n_copies >= 3 else 1, rng)
    planted = {id(r) for r in textured[: len(settings["copies"]) * settings["n_clusters"]]}
    rest = [r for r in chosen if id(r) not in planted]
    held_out, singles = rest[: settings["n_held_out"]], rest[settings["n_held_out"]: settings["n_held_out"] + settings["n_singles"]]
    tones = [r for r in toned if r["base_codepoints"] in {s["base_codepoints"] for s in singles}][: settings["n_tones"]]
    for row in singles + tones:
        members.append({"bytes": png(row["picture"]), "caption": row["caption"], "cluster": row["caption"],
                        "n_copies": 1, "alteration": "exact", "kind": "single"})
    near = np.stack([pixels(Image.open(io.BytesIO(r["bytes"])).convert("RGB")) for r in members])
    held_out = [r for r in held_out if np.sqrt(np.mean((near - pixels(r["picture"])) ** 2, axis=1)).min() >= settings["min_l2"]]
    return members, [{"bytes": png(r["picture"]), "caption": r["caption"]} for r in held_out]


def main() -> None:
    """Write the two splits and what was planted in them."""
    settings = yaml.safe_load((HERE / "params.yaml").read_text())["training_set"]
    rng = np.random.default_rng(settings["seed"])
    emoji = pq.read_table(HERE / "noto_emoji.parquet").to_pylist()
    for row in emoji:
        row["picture"] = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    members, held_out = members_and_held_out(emoji, settings, rng)
    members = [members[i] for i in rng.permutation(len(members))]
    for split, rows in (("member", members), ("held_out", held_out)):
        for i, row in enumerate(rows):
            row["path"] = f"{split}-{i:05d}.{'jpg' if row.get('alteration') == 'reencoded' else 'png'}"
    written(members, HERE / "training_set" / "members.parquet")
    written(held_out, HERE / "held_out" / "held_out.parquet")
    planted = [{"key": r["path"], **{k: r[k] for k in ("cluster", "n_copies", "alteration", "kind", "caption")}} for r in members]
    pq.write_table(pa.Table.from_pylist(planted), HERE / "planted.parquet", compression="zstd")
    print(f"{len(members)} members of {len({r['cluster'] for r in members})} pictures, {len(held_out)} held-out images")


if __name__ == "__main__":
    main()
