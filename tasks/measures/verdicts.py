"""What a pair of pictures is called: the definitions of the match types, as pure functions of the measures."""

import math

MATCH_TYPES = ("verbatim", "near_copy", "template", "undecided", "none")
EXTRACTED = ("verbatim", "near_copy", "template")
L2_BANDS = (0.05, 0.10, 0.15)  # l2 <= 0.05 is what one may call verbatim to a lawyer


def is_verbatim(l2: float, margin: float | None, max_l2: float = 0.15, max_margin: float = 0.7) -> bool:
    """l2 within Carlini's bound and clearly closer than to any other picture; without another picture (margin None) l2 decides."""
    return l2 <= max_l2 and _within(margin, max_margin)


def is_near_copy(similarity: float, margin: float | None, min_similarity: float, max_margin: float = 0.85) -> bool:
    """Similar as no more than 1 % of the controls are to their own image, and closer than to any other picture."""
    return similarity >= min_similarity and _within(margin, max_margin)


def l2_band(l2: float) -> str | None:
    """The band of L2_BANDS that an l2 falls in: its upper end as text; None beyond the last."""
    return next((f"{band:.2f}" for band in L2_BANDS if l2 <= band), None)


def _within(margin: float | None, bound: float) -> bool:
    return margin is None or math.isnan(margin) or margin <= bound
