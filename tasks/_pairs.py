"""What of a long list a page can hold: which pairs are shown, which a person is asked about, their pictures inside a budget of bytes."""

import base64
import hashlib
import json
from typing import Any

import numpy as np

from tasks import _pictures, _tables, _training_sets
from tasks._pages import named

MAX_PAIRS = 500  # with pictures inline
MAX_ROWS = 10_000  # the rest by SQL
MAX_REVIEWED = 100  # pairs a person is asked about, and as many decoys
PICTURES_BYTES = 4_000_000  # of all pictures together, in base64
ROWS_BYTES = 1_800_000  # of all rows together
THUMBNAIL_PX, DIFFERENCE_PX = 128, 64
AMPLIFIED = 4  # a difference image shows this many times the difference
SAID = ("copy", "substantially_similar", "template", "not_a_copy")  # what a reviewer can say of a pair


def pairs(extracted: list[dict[str, Any]], new: set[int]) -> list[dict[str, Any]]:
    """At most MAX_PAIRS of the extracted findings, closest first: every one of the prompts `new` before any other."""
    chosen = sorted(extracted, key=lambda r: (r["prompt_id"] not in new, r["l2"], r["finding_id"]))[:MAX_PAIRS]
    return sorted(chosen, key=lambda r: (r["l2"], r["finding_id"]))


def asked(shown: list[dict[str, Any]], findings: list[dict[str, Any]], protocol_digest: str) -> list[dict[str, Any]]:
    """Findings to review, pairs and decoys as many, in an order that does not tell which is which and is the same for every reviewer.

    A decoy is a control's generation beside its own held-out image. Fewer pairs are asked about where there are fewer decoys; all, without any.
    """
    def drawn(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(rows, key=lambda r: hashlib.sha256(f"{protocol_digest} {r['finding_id']}".encode()).digest())

    decoys = [r for r in findings if r["arm"] == "held_out" and r["generation_id"] is not None and not r["is_extracted"] and not r["caption_rank"]]
    n = min(len(shown), len(decoys) or MAX_REVIEWED, MAX_REVIEWED)
    return drawn(drawn(shown)[:n] + drawn(decoys)[:n])


def rows(findings: list[dict[str, Any]], pictured: set[int], new: set[int]) -> dict[str, Any]:
    """All findings as short rows, extracted ones first, at most MAX_ROWS and ROWS_BYTES: long captions and names are cut.

    pictured = finding_ids of the pairs in the page, new = prompt_ids that an earlier release gave no training image on.
    """
    ordered = sorted(findings, key=lambda r: (not r["is_extracted"], r["margin"] if r["margin"] is not None else 9.0, r["finding_id"]))[:MAX_ROWS]
    arms, types = (sorted({r[name] for r in ordered}) for name in ("arm", "match_type"))
    for longest in (120, 60, 30, 15, 0):
        listed = [[str(r["finding_id"]), cut(named(r["caption"]), longest), arms.index(r["arm"]), types.index(r["match_type"]),
                   _thousandths(r["l2"]), _thousandths(r["margin"]), _thousandths(r["similarity"]), r["n_copies"], _thousandths(r["hit_rate"]),
                   cut(r["image_key"] or "", longest), int(r["is_extracted"]) + 2 * int(r["is_flagged"]) + 4 * int(r["finding_id"] in pictured)
                   + 8 * int(r["prompt_id"] in new and r["is_extracted"])] for r in ordered]
        if len(json.dumps(listed, ensure_ascii=False, separators=(",", ":")).encode()) <= ROWS_BYTES:
            break
    return {"arms": arms, "types": types, "rows": listed, "n": len(findings)}


def cut(text: str, n: int) -> str:
    """The text, or its first n characters and an ellipsis."""
    return text if len(text) <= n else f"{text[:n]}…"


def max_bytes(n_pictures: int) -> int:
    """Bytes that each of so many pictures may have, before base64 makes four of three."""
    return min(12_000, PICTURES_BYTES * 3 // 4 // max(n_pictures, 1))


def _thousandths(value: float | None) -> int | None:
    return None if value is None else round(1000 * value)


class Pictures:
    """Pictures of a release's findings as data: addresses, each no larger than its share of the page's budget."""

    def __init__(self, release: str, images: dict[int, dict[str, Any]], size_px: int, n_pictures: int) -> None:
        """images = rows of `images` by image_id; size_px = the side at which the audit compares; n_pictures will be asked for."""
        self.generations = {r["generation_id"]: r for r in _tables.read("generations", release).to_pylist()}
        self.generated, self.originals = _pictures.GenerationReader(release), _training_sets.Reader()
        self.images, self.size_px = images, size_px
        self.max_bytes = max_bytes(n_pictures)

    def pair(self, r: dict[str, Any]) -> dict[str, Any]:
        """A finding with its pictures: generated, original and their difference; None where there is none."""
        return r | self._beside(r, r["image_id"])

    def decoy(self, r: dict[str, Any]) -> dict[str, Any]:
        """A control with its generation and its own held-out image."""
        return r | self._beside(r, r["own_image"])

    def _beside(self, r: dict[str, Any], image_id: int | None) -> dict[str, Any]:
        generated = self.generated.pixels(self.generations[r["generation_id"]])
        original = self.originals.pixels(self.images[image_id]) if image_id in self.images else None
        return {"generated": self._inline(generated, THUMBNAIL_PX), "original": None if original is None else self._inline(original, THUMBNAIL_PX),
                "difference": None if original is None else self._inline(difference(generated, original, self.size_px), DIFFERENCE_PX)}

    def _inline(self, pixels: np.ndarray, side: int) -> dict[str, Any]:
        address = "data:image/webp;base64," + base64.b64encode(_pictures.thumbnail(pixels, side, self.max_bytes)).decode()
        return {"address": address, "is_small": max(pixels.shape[:2]) < THUMBNAIL_PX}


def difference(a: np.ndarray, b: np.ndarray, side: int) -> np.ndarray:
    """[side, side, 3] uint8: AMPLIFIED times the absolute difference of two pictures [h, w, 3] uint8 at this side; black where they agree."""
    apart = np.abs(_pictures.resized(a, side).astype(np.int16) - _pictures.resized(b, side))
    return np.asarray(np.minimum(AMPLIFIED * apart, 255), np.uint8)
