"""Whether a release may go out, by bounds on what its audit measured: read from the view `gate`, and decided so that what is not known fails."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks import _database

BY = {"measured": "extraction_rate", "low": "low", "high": "high"}  # what max_rate bounds -> column of the view


@dataclass(frozen=True)
class Bounds:
    """What a release may do at most; None: no bound."""

    max_rate: float | None = None
    by: str = "measured"  # a key of BY
    max_new: int | None = None


@dataclass(frozen=True)
class Decision:
    """Whether a release passes, with the bounds it breaks, or those it keeps."""

    release: str
    is_passed: bool
    reasons: list[str]

    def __str__(self) -> str:
        return f"{self.release}: {'passes' if self.is_passed else 'fails'}: {'; '.join(self.reasons)}"


def decisions(database: Path, releases: Sequence[str], bounds: Bounds) -> list[Decision]:
    """One for each release, in order. Raises UserError where there is no database."""
    found = {row["release"]: row for row in _database.rows(database, "from gate").to_pylist()}
    return [decision(release, found.get(release), bounds) for release in releases]


def decision(release: str, row: dict[str, Any] | None, bounds: Bounds) -> Decision:
    """The decision on a row of the view `gate`; None: the database does not know the release."""
    if row is None:
        return Decision(release, False, [f"the database does not have it yet; run `eidetic audit {release}`"])
    if row["status"] != "current":
        return Decision(release, False, [row["reason"]])
    n = row["n_failed_checks"]
    said = [(False, f"{n} check{'' if n == 1 else 's'} failed; see `eidetic checks`")] if n else []
    said += [_rate(row, bounds)] if bounds.max_rate is not None else []
    said += [_new(row, bounds.max_new)] if bounds.max_new is not None else []
    broken = [text for holds, text in said if not holds]
    return Decision(release, not broken, broken or [text for _, text in said] or ["its audit is current and no check failed; no bound was given"])


def _rate(row: dict[str, Any], bounds: Bounds) -> tuple[bool, str]:
    """Whether the extraction rate is within its bound, and the sentence that says so."""
    if row["arm"] is None or row["extraction_rate"] is None:
        why = "no target was prompted" if row["arm"] is None else "no training picture was there to compare with"
        return False, f"no extraction rate was measured: {why}"
    value, limit = row[BY[bounds.by]], bounds.max_rate or 0.0
    end = "" if bounds.by == "measured" else f", {'lower' if bounds.by == 'low' else 'upper'} end"
    controls = f"{row['n_controls_flagged']} of {row['n_controls']} controls flagged" if row["n_controls"] else "no controls"
    told = (f"extraction rate{end} {_percent(value)} ({row['n_findings']} of {row['n_prompts']} prompts of arm {row['arm']}, 95 % interval "
            f"{_percent(row['low'])} to {_percent(row['high'])}, {controls})")
    return value <= limit, f"{told} is {'at most' if value <= limit else 'above'} {_percent(limit)}"


def _new(row: dict[str, Any], max_new: int) -> tuple[bool, str]:
    """Whether few enough images are new, and the sentence that says so; two releases that cannot be compared break every bound."""
    if row["against"] is None:
        return True, "there is no release to compare it with"
    n = row["n_new_images"]
    if n is None:
        return False, f"it cannot be compared with '{row['against']}': {row['not_comparable_reason']}"
    undrawn = f" ({row['n_new_undrawn']} of them on prompts of which that one drew no picture)" if row["n_new_undrawn"] else ""
    told = f"{n} image{'' if n == 1 else 's'} that '{row['against']}' did not return{undrawn}"
    return n <= max_new, f"{told}, {'at most' if n <= max_new else 'more than'} {max_new}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
