"""Canaries: known copies of random training images, altered as far as a copy may be, that every run searches and never counts."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from tasks import _embedders, _pictures, _search, _training_sets
from tasks.measures import calibration, indexes, neighbours, rates

Alteration = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def cropped(share: float) -> Alteration:
    """A crop by this share of either side, at a random place."""

    def alter(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        cut_y, cut_x = (max(1, round(side * share)) for side in pixels.shape[:2])
        top, left = int(rng.integers(0, cut_y + 1)), int(rng.integers(0, cut_x + 1))
        return np.asarray(pixels[top:pixels.shape[0] - cut_y + top, left:pixels.shape[1] - cut_x + left])

    return alter


def _halved(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = (side // 2 for side in pixels.shape[:2])
    return np.asarray(np.rint(pixels[:2 * height, :2 * width].reshape(height, 2, width, 2, 3).mean(axis=(1, 3))).astype(np.uint8))


def _rotated(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(ndimage.rotate(pixels, 3 * rng.choice((-1, 1)), reshape=False, order=1, mode="constant", cval=255))


def _watermarked(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    made, height = pixels.copy(), len(pixels)
    made[round(0.80 * height):round(0.92 * height)] = 20
    return np.asarray(made)


def _padded(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    y, x = (max(1, side // 8) for side in pixels.shape[:2])
    return np.pad(pixels, ((y, y), (x, x), (0, 0)), constant_values=255)


COPIES: dict[str, Alteration] = {  # how far a copy may differ and still count: these set the thresholds
    "reencoded": lambda pixels, rng: _pictures.canonical(_pictures.jpeg(pixels, 30)),
    "half_size": _halved,
    "brighter": lambda pixels, rng: np.clip(pixels * 1.15, 0, 255).astype(np.uint8),
    "cropped_5pct": cropped(0.05),
    "rotated_3deg": _rotated,
}
BEYOND: dict[str, Alteration] = {  # reported beside them, not promised
    "cropped_10pct": cropped(0.10),
    "cropped_25pct": cropped(0.25),
    "mirrored": lambda pixels, rng: np.ascontiguousarray(pixels[:, ::-1]),
    "watermarked": _watermarked,
    "padded": _padded,
}
ALTERATIONS = COPIES | BEYOND
NEARLY_ALL, MOST = 0.99, 0.9  # of the canaries: as similar as that a near neighbour, or any at all, is looked at
USUAL = {"max_tile_difference": 0.04, "max_l2": 0.1}
EXACT = "exact_search"  # in their table: pairs that it finds, and an index


@dataclass(frozen=True)
class Marks:
    """Where copies end."""

    tile_difference: float
    l2: float
    floor: float  # of similarity: below, nothing is looked at
    enough: float  # at or above, everything is, however many; between the two the nearest

    def is_copy(self, l2: np.ndarray, tile_difference: np.ndarray) -> np.ndarray:
        """[p] bool: nan is no copy."""
        return (tile_difference <= self.tile_difference) & (l2 <= self.l2)


@dataclass(frozen=True)
class Seen:
    """What the search sees of pairs, each [c]: of a canary and its source, or of an image and its neighbour."""

    similarity: np.ndarray  # float32 cosine of the descriptors
    is_near: np.ndarray  # bool: among the k nearest
    has_close_hash: np.ndarray  # bool: PDQ of enough quality within its distance
    l2: np.ndarray  # float32, after alignment
    tile_difference: np.ndarray


def chosen(names: list[str], rows: np.ndarray, n: int, purpose: str) -> np.ndarray:
    """[<= n] of the rows: the first by a hash of purpose and name, so that another order or another id of the rows picks the same pictures."""
    return np.array(sorted(rows.tolist(), key=lambda row: hashlib.sha256(f"{purpose} {names[row]}".encode()).digest())[:n], np.int64)


def planted(images: _search.Images, rows: dict[int, dict[str, Any]], settings: dict[str, Any], model: _embedders.Embedder) -> dict[str, Seen]:
    """What the search sees of copies of some images, by alteration; rows are those of `images` to copy, by their place there.

    settings: those of duplicates, and size_px, the side at which descriptors compare.
    """
    reader, sources = _training_sets.Reader(), np.array(list(rows), np.int64)
    made = {}
    for name, alter in ALTERATIONS.items() if rows else ():
        copies = []
        for row in rows.values():
            rng = np.random.default_rng(list(hashlib.sha256(f"{settings['seed']} {name} {row['pixel_digest']}".encode()).digest()))
            copies.append(np.ascontiguousarray(alter(reader.pixels(row), rng)))
        made[name] = _seen(images, list(rows.values()), sources, copies, (model.descriptors(copies, settings["size_px"]), settings))
    return made


def _seen(images: _search.Images, rows: list[dict[str, Any]], sources: np.ndarray, copies: list[np.ndarray],
          described: tuple[np.ndarray, dict[str, Any]]) -> Seen:
    vectors, settings = described
    own = np.arange(len(sources))
    _, nearest = neighbours.nearest(images.vectors[images.first], vectors, settings["n_neighbours"])
    hashes = [_pictures.pdq(pixels) for pixels in copies]
    both_hashes = [bytes.fromhex(row["pdq"]) + found for row, (found, _) in zip(rows, hashes, strict=True)]
    bits = [np.unpackbits(np.frombuffer(found, np.uint8).reshape(2, 32), axis=1) for found in both_hashes]
    is_clear = [min(row["pdq_quality"], quality) >= settings["pdq_quality"] for row, (_, quality) in zip(rows, hashes, strict=True)]
    shown = np.stack([_pictures.resized(pixels, settings["confirm_px"]) for pixels in copies])
    both = np.concatenate([images.shown()[images.at(sources)], shown])
    found = _search.differences(both, np.stack([own, own + len(own)], axis=1), settings["template_l2"])
    return Seen(np.vecdot(images.vectors[sources], vectors), (nearest == images.at(sources)[:, None]).any(axis=1),
                np.array([clear and int((a != b).sum()) <= settings["pdq_distance"] for clear, (a, b) in zip(is_clear, bits, strict=True)], bool),
                found["l2"], found["tile_difference"])


def natural(images: _search.Images, rows: np.ndarray, settings: dict[str, Any]) -> Seen:
    """What the search sees of some images and their nearest neighbours, each pair once: copies, and what copies must be told from."""
    near = np.zeros((0, 2), np.int64)
    if len(rows):
        _, nearest = neighbours.nearest(images.vectors[images.first], images.vectors[rows], settings["n_neighbours"] + 1)
        pairs = np.stack([np.repeat(rows, nearest.shape[1]), images.first[nearest.ravel()]], axis=1)
        near = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
    found = images.compared(near, settings["template_l2"])
    return Seen(images.similarity(near), np.ones(len(near), bool), np.zeros(len(near), bool), found["l2"], found["tile_difference"])


def marks_of(canary: dict[str, Seen], natural: Seen, n_natural: int, settings: dict[str, Any]) -> Marks:
    """The thresholds: those that settings name, the others from canaries and from the neighbours of n_natural random images."""
    promised = [seen for name, seen in canary.items() if name in COPIES]
    if not promised:  # no picture to copy: as on flat art, unless settings say otherwise
        usual = [settings[name] if settings[name] is not None else value for name, value in USUAL.items()]
        return Marks(usual[0], usual[1], settings["min_similarity"], settings["min_similarity"])
    l2, similarity = (np.concatenate([getattr(seen, name) for seen in promised]) for name in ("l2", "similarity"))
    named = settings["max_tile_difference"], settings["max_l2"]
    found = calibration.copy_threshold([seen.tile_difference for seen in promised], natural.tile_difference, n_natural), calibration.outer(l2)
    lowest = settings["min_similarity"]
    floor, enough = min(calibration.similarity_reached(similarity, NEARLY_ALL), lowest), max(calibration.similarity_reached(similarity, MOST), lowest)
    tile_difference, most_l2 = (chosen if chosen is not None else value for chosen, value in zip(named, found, strict=True))
    return Marks(tile_difference, most_l2, floor, enough)


def threshold_rows(marks: Marks, canary: dict[str, Seen], natural: Seen, n_natural: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of `thresholds`: each with the canaries and the natural neighbours on its right side."""
    promised = [seen for name, seen in canary.items() if name in COPIES]
    rows = []
    for name, value, sign in (("tile_difference", marks.tile_difference, 1), ("l2", marks.l2, 1), ("similarity", marks.floor, -1)):
        passed = [float((sign * getattr(seen, name) <= sign * value).sum()) for seen in (*promised, natural)]
        n_planted = sum(len(seen.l2) for seen in promised)
        rows.append({"name": name, "value": value, "is_calibrated": bool(promised) and settings.get(f"max_{name}") is None, "n_natural": n_natural,
                     "canary_share": sum(passed[:-1]) / n_planted if n_planted else None, "natural_rate": passed[-1] / n_natural if n_natural else None})
    return rows


def recall_rows(canary: dict[str, Seen], marks: Marks, probed: indexes.Probes | None) -> list[dict[str, Any]]:
    """Rows of `canaries`: how many of the altered copies are proposed, and confirmed as copies; and how many of an exact search's pairs an index found."""
    rows = [_recalled(EXACT, True, probed.n_exact, probed.n_found, probed.n_found)] if probed and probed.n_exact else []
    for name, seen in canary.items():
        is_proposed = seen.has_close_hash | (seen.similarity >= marks.enough) | (seen.is_near & (seen.similarity >= marks.floor))
        n_found = int((is_proposed & marks.is_copy(seen.l2, seen.tile_difference)).sum())
        rows.append(_recalled(name, name in COPIES, len(is_proposed), int(is_proposed.sum()), n_found))
    return rows


def _recalled(name: str, is_promised: bool, n: int, n_proposed: int, n_found: int) -> dict[str, Any]:
    low, high = rates.clopper_pearson(n_found, n)
    return {"transform": name, "is_promised": is_promised, "n_planted": n, "n_proposed": n_proposed, "n_found": n_found, "recall": n_found / n,
            "recall_low": low, "recall_high": high}
