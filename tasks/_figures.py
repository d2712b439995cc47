"""The figures of a report: their numbers once, drawn as SVG in the page and as PNG for people's slides and `dvc plots`.

The only file that imports matplotlib. A mark is told by its shape or its dashes as well as by its colour.
"""

import io
import os
from dataclasses import dataclass, field
from math import ceil, floor, log10
from pathlib import Path
from typing import Any

import numpy as np

from tasks.measures import curves, rates

MAX_NAMED = 500  # points that the page names under the pointer; more are one path
MAX_MARGIN = 1.1  # points beyond stand on the edge
PUBLISHED = 50_000  # denoiser evaluations per prompt of the published attack
BINS = ("1", "2-3", "4-9", "10-29", "30-99", "100+")
INK, SOFT, LINE, KEY = "#17191e", "#5a6170", "#e3e5e9", "#b93a0a"  # the page's own, in its light dress


@dataclass(frozen=True)
class Axis:
    """One direction of a plot; ticks as text and value."""

    label: str
    low: float
    high: float
    ticks: list[tuple[str, float]]
    is_log: bool = False

    def at(self, values: Any) -> Any:
        """Places in percent of the axis, of values or of one; what lies beyond stands on its end."""
        low, high, of = (log10(self.low), log10(self.high), np.log10(np.maximum(values, self.low))) if self.is_log else (self.low, self.high, values)
        return np.round(100 * np.clip((np.asarray(of, float) - low) / ((high - low) or 1), 0, 1), 2)


@dataclass(frozen=True)
class Series:
    """Marks of one kind: style is step, dashed, band (y to y2), found, other or flagged."""

    label: str
    style: str
    x: np.ndarray
    y: np.ndarray
    y2: np.ndarray | None = None
    names: tuple[str, ...] = ()  # of points few enough to be drawn one by one


@dataclass(frozen=True)
class Plot:
    """A figure with two axes. bounds = (axis, value, what it says); corner = the largest x and y of the shaded corner."""

    name: str
    title: str
    alt: str
    note: str
    x: Axis
    y: Axis
    series: list[Series]
    bounds: list[tuple[str, float, str]] = field(default_factory=list)
    corner: tuple[float, float] | None = None

    def path(self, series: Series) -> str:
        """The series as an SVG path in a square of 100, y downwards."""
        x, y = self.x.at(series.x), 100 - self.y.at(series.y)
        if series.style in ("step", "dashed") and len(x):
            steps = [f"H{a:g}V{b:g}" for (a, b), (was_a, was_b) in zip(zip(x[1:], y[1:], strict=True), zip(x, y, strict=False), strict=False)
                     if (a, b) != (was_a, was_b)]
            return f"M{x[0]:g} {y[0]:g}" + "".join(steps)
        if series.style == "band" and series.y2 is not None and len(x):
            back = list(zip(x, 100 - self.y.at(series.y2), strict=True))[::-1]
            return "M" + "L".join(f"{a:g} {b:g}" for a, b in [*zip(x, y, strict=True), *back]) + "Z"
        return "".join(f"M{a:g} {b:g}h0" for a, b in sorted(set(zip(x.tolist(), y.tolist(), strict=True))))

    def marks(self, series: Series) -> list[tuple[float, float, str]]:
        """The points of a series with names, in percent from the top left."""
        return list(zip(self.x.at(series.x).tolist(), (100 - self.y.at(series.y)).round(2).tolist(), series.names, strict=True))


def shares(label: str) -> Axis:
    """An axis from 0 to 100 %."""
    return Axis(label, 0, 1, [("0", 0.0), ("50 %", 0.5), ("100 %", 1.0)])


def counts(label: str, most: float) -> Axis:
    """An axis from 0 to at least `most`, with a few round ticks."""
    step = next(s * 10**e for e in range(12) for s in (1, 2, 5) if s * 10**e * 6 >= most)
    n = max(1, ceil(most / step))
    return Axis(label, 0, n * step, [(f"{i * step:,}", float(i * step)) for i in range(n + 1)])


def powers(label: str, least: float, most: float) -> Axis:
    """A logarithmic axis over whole powers of ten."""
    low, high = floor(log10(max(least, 1))), ceil(log10(max(most, 10)))
    units = ["1", "10", "100", "1k", "10k", "100k", "1M", "10M", "100M", "1G", "10G", "100G"]
    high = max(high, low + 1)
    return Axis(label, 10.0**low, 10.0**high, [(units[e] if e < len(units) else f"1e{e}", 10.0**e) for e in range(low, high + 1)], is_log=True)


def distances(findings: list[dict[str, Any]], thresholds: dict[str, Any], *, is_control: bool) -> Plot:
    """l2 and margin of each prompt's medoid, of the targets or of the controls, on the same axes."""
    measured = [r for r in findings if r["margin"] is not None and r["l2"] is not None]
    widest = min(max(ceil(10 * max((r["l2"] for r in measured), default=0)) / 10, 0.3), 0.6)
    of = [r for r in measured if (r["arm"] == "held_out") == is_control]
    labels = {"other": "no copy", "found": "copy of a training image", "flagged": "false alarm"}
    marks = []
    for kind, label in labels.items():
        rows = [r for r in of if _kind(r) == kind]
        l2, margin = (np.array([r[axis] for r in rows], float) for axis in ("l2", "margin"))
        names = tuple(f"\u2068{r['caption'][:80]}\u2069: l2 {r['l2']:.3f}, margin {r['margin']:.2f}" for r in rows) if len(of) <= MAX_NAMED else ()
        marks.append(Series(label, kind, l2, margin, names=names))
    who, corner = "Controls" if is_control else "Targets", (thresholds["verbatim_l2"], thresholds["verbatim_margin"])
    note = (f"Each prompt’s typical picture: how far from the nearest picture, and how much nearer than the next. Shaded: verbatim, l2 at most {corner[0]} "
            f"and margin at most {corner[1]}." if not is_control else
            "The same of images that the model never saw: a cross in the shade would be a false alarm; filled, a training image came back.")
    return Plot(who.lower(), who, f"{who}: l2 and margin of each prompt’s typical picture; {sum(len(s.x) for s in marks)} prompts, "
                f"{len(marks[1].x)} of them copies of a training image, {len(marks[2].x)} false alarms",
                note, Axis("l2 to the nearest picture", 0, widest, [(f"{i / 10:g}", i / 10) for i in range(round(10 * widest) + 1)]),
                Axis("margin", 0, MAX_MARGIN, [("0", 0.0), ("0.5", 0.5), ("1", 1.0)]), [s for s in marks if len(s.x)],
                [("y", corner[1], f"margin {corner[1]}")], corner)


def _kind(r: dict[str, Any]) -> str:
    return "found" if r["is_extracted"] else "flagged" if r["is_flagged"] else "other"


def similarity(findings: list[dict[str, Any]], near_copy: float | None) -> Plot:
    """Share of targets and of controls at least as similar to the nearest picture; near_copy = threshold of near copies, None without one."""
    of = {name: np.array([r["similarity"] for r in findings if r["similarity"] is not None and (r["arm"] == "held_out") == is_control], float)
          for name, is_control in (("targets", False), ("controls", True))}
    least = min((v.min() for v in of.values() if len(v)), default=0.0)
    low = min(0.0, floor(5 * least) / 5) if least < 0.2 else floor(5 * least) / 5
    marks = []
    for name, values in of.items():
        x, y = curves.share_at_least(values)
        if len(x):  # what is reached at x is left behind after it
            marks.append(Series(name, "step" if name == "targets" else "dashed", np.r_[low, x, 1.0], np.r_[1.0, y[1:], 0.0, 0.0]))
    bounds = [("x", near_copy, f"near copy {near_copy:.2f}")] if near_copy is not None and near_copy <= 1 else []
    return Plot("similarity", "Similarity", "Share of targets and of controls whose typical picture is at least so similar to the nearest picture",
                "Share of prompts whose typical picture is at least so similar to its nearest, by descriptor. Descriptors propose; pixels decide.",
                Axis("similarity, at least", low, 1, [(f"{round(low + i * 0.2, 1):g}", low + i * 0.2) for i in range(round((1 - low) / 0.2) + 1)]),
                shares("share of prompts"), marks, bounds)


def false_share(findings: list[dict[str, Any]]) -> Plot | None:
    """The precision curve: false share of the list by its length, ordered by margin; None without controls or matches.

    As the view precision_curve has it: all targets, by their most frequent caption; the controls that judge.
    """
    judged = [r for r in findings if not r["is_calibrating"] and not r["caption_rank"]]
    n_controls = sum(r["arm"] == "held_out" for r in judged)
    hits = [r for r in judged if r["margin"] is not None and r["split"] == ("held_out" if r["arm"] == "held_out" else "member")]
    hits.sort(key=lambda r: (r["margin"], r["l2"], r["finding_id"]))
    is_target = np.array([r["arm"] != "held_out" for r in hits], bool)
    n_targets = len(judged) - n_controls
    if not n_controls or not is_target.any():
        return None
    estimate, upper = curves.false_shares(is_target, n_targets, n_controls)
    found, flagged = sum(r["is_extracted"] for r in judged if r["arm"] != "held_out"), sum(r["is_flagged"] for r in judged if r["arm"] == "held_out")
    own = rates.decoy_fdr(n_targets, found, n_controls, flagged)
    marks = [Series("estimate", "step", *_lists(estimate)), Series("95 % bound", "dashed", *_lists(upper))]
    marks += [Series("this list", "found", np.array([found], float), np.array([own], float))] if own is not None else []
    return Plot("false_share", "False share, by length of the list", f"Estimated false share of the list by its length, up to {len(estimate)} images",
                "All targets, closest first by margin: were the list cut there. Dot: the list as the verdicts have it, all arms together.",
                counts("images in the list", len(estimate)), shares("false share"), marks)


def cost(findings: list[dict[str, Any]]) -> Plot | None:
    """Findings against denoiser evaluations, targets alone, in the order of the screen; None without targets.

    findings with text_noise_norm and screen_evaluations of their row of screening.
    """
    targets = [r for r in findings if r["arm"] != "held_out" and not r["caption_rank"]]
    targets.sort(key=lambda r: (not r["n_generations"], -(r["text_noise_norm"] or 0.0), r["prompt_id"]))
    if not targets:
        return None
    found = np.array([r["is_extracted"] for r in targets])
    screen = sum(r["screen_evaluations"] for r in targets)
    spent, n_found = curves.found_by_cost(np.array([r["n_evaluations"] - r["screen_evaluations"] for r in targets]), found, screen)
    published, n_published = curves.found_by_cost(np.full(len(targets), PUBLISHED), found)
    start = max(screen, 1)
    marks = [Series("this audit", "step", np.r_[start, np.maximum(spent, start)], np.r_[0, n_found]),
             Series("as published", "dashed", np.r_[start, published], np.r_[0, n_published])]
    others = sum(r["n_evaluations"] for r in findings) - int(spent[-1])
    return Plot("cost", "Findings, by evaluations spent", f"Findings against denoiser evaluations: {int(n_found[-1])} findings for {int(spent[-1]):,}",
                f"Targets in the order of the screen, its own cost first. Dashed: the same at {PUBLISHED:,} evaluations a prompt, as published. "
                f"Controls and further captions cost {others:,} more.",
                powers("denoiser evaluations", start, max(spent[-1], published[-1])), counts("findings", max(int(n_found[-1]), 1)), marks)


def manual_precision(precision: np.ndarray) -> Plot | None:
    """Share of labelled pairs that people call copies, the list cut after each, closest first; precision [n, 3] with its interval."""
    if not len(precision):
        return None
    k, (lengths, called) = len(precision), _lists(precision)
    return Plot("manual_precision", "What people call a copy", f"Share of the closest pairs that people call copies: {precision[-1, 0]:.0%} of {k}",
                "Labelled pairs, closest first by margin, the list cut after each. Band: 95 % Clopper–Pearson, of each cut alone.",
                counts("labelled pairs in the list", k), shares("called a copy"),
                [Series("95 % interval", "band", lengths, called[:, 1], called[:, 2]), Series("share", "step", lengths, called[:, 0])])


def _lists(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths from 0 and values [n, ...] of lists of 1 to n, the first value from 0 on: one alone is a line too."""
    return np.arange(len(values) + 1, dtype=float), np.r_[values[:1], values]


def by_copies(summary: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of randomly drawn arms by bin of copies, few to many."""
    rows = [r for r in summary if r["arm"] in ("singleton", "duplicated") and r["copies_bin"] in BINS and r["extraction_rate"] is not None]
    return sorted(rows, key=lambda r: (BINS.index(r["copies_bin"]), r["arm"] != "singleton"))


def plots(findings: list[dict[str, Any]], thresholds: dict[str, Any], near_copy: float | None, precision: np.ndarray) -> dict[str, Plot]:
    """All figures but the rates by copies, by name; those without numbers are left out."""
    made = [distances(findings, thresholds, is_control=False), distances(findings, thresholds, is_control=True), similarity(findings, near_copy),
            false_share(findings), cost(findings), manual_precision(precision)]
    return {plot.name: plot for plot in made if plot is not None and plot.series}


def png(plot: Plot) -> bytes:
    """The figure as a PNG of 1200 x 800, the same bytes for the same numbers."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6, 4), dpi=200, layout="constrained")
    axes = drawn.add_subplot(xlabel=plot.x.label, ylabel=plot.y.label, xscale="log" if plot.x.is_log else "linear")
    axes.set_title(plot.title, loc="left", fontsize=12, fontweight="bold", color=INK)
    if plot.corner:
        axes.fill_between([0, plot.corner[0]], 0, plot.corner[1], color=KEY, alpha=0.09, linewidth=0)
    for axis, value, text in plot.bounds:
        (axes.axvline if axis == "x" else axes.axhline)(value, color=INK, linewidth=1, linestyle=(0, (2, 3)), label=text)
    for s in plot.series:
        _draw(axes, plot, s)
    for which, side in (("x", plot.x), ("y", plot.y)):
        getattr(axes, f"set_{which}lim")(side.low, side.high)
        getattr(axes, f"set_{which}ticks")([value for _, value in side.ticks], labels=[text for text, _ in side.ticks])
    return _finished(drawn, axes)


def png_by_copies(bins: list[dict[str, Any]]) -> bytes:
    """The rates by copies, with their intervals, as a PNG of 1200 x 800."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6, 4), dpi=200, layout="constrained")
    axes = drawn.add_subplot(xlabel="share that comes back, 95 % interval", xlim=(0, 1))
    axes.set_title("Come back, by copies", loc="left", fontsize=12, fontweight="bold", color=INK)
    at = range(len(bins))
    axes.hlines(at, [r["low"] for r in bins], [r["high"] for r in bins], color=KEY, alpha=0.28, linewidth=8)
    axes.plot([r["extraction_rate"] for r in bins], at, "o", color=KEY, clip_on=False, zorder=3)
    names = [f"{r['copies_bin'].replace('-', '–')} {'copy' if r['copies_bin'] == '1' else 'copies'}: {r['n_findings']} of {r['n_prompts']}" for r in bins]
    axes.set_yticks(list(at), labels=names)
    axes.set_ylim(len(bins) - 0.4, -0.6)
    axes.set_xticks([0, 0.5, 1], labels=["0", "50 %", "100 %"])
    return _finished(drawn, axes)


def put(made: dict[str, bytes], folder: Path) -> None:
    """Write the PNGs, each beside its place and renamed; those of an earlier report that this one lacks are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        if old.stem not in made:
            old.unlink()
    for name, data in made.items():
        temporary = folder / f"{name}.{os.getpid()}.tmp"
        temporary.write_bytes(data)
        os.replace(temporary, folder / f"{name}.png")


def _draw(axes: Any, plot: Plot, s: Series) -> None:
    """One series on matplotlib's axes; what lies beyond the plot stands on its edge, as in the page."""
    x, y = (np.clip(values, axis.low, axis.high) for values, axis in ((s.x, plot.x), (s.y, plot.y)))
    looks: dict[str, dict[str, Any]] = {
        "step": {"color": KEY}, "dashed": {"color": INK, "linestyle": (0, (4, 3)), "linewidth": 1.2}, "band": {"color": KEY, "alpha": 0.2, "linewidth": 0},
        "found": {"color": KEY, "marker": "o", "markeredgecolor": "white"}, "other": {"color": "none", "marker": "o", "markeredgecolor": "#868e9c"},
        "flagged": {"color": KEY, "marker": "x", "markeredgewidth": 2}}
    if s.style in ("step", "dashed"):
        axes.step(x, y, where="post", label=s.label, **looks[s.style])
    elif s.style == "band":
        axes.fill_between(x, y, s.y2, label=s.label, **looks[s.style])
    else:
        axes.plot(x, y, markersize=5.5, linestyle="none", clip_on=False, label=s.label, **looks[s.style])


def _finished(drawn: Any, axes: Any) -> bytes:
    """The page's look on matplotlib's axes, and the file's bytes, without the version that drew them."""
    axes.tick_params(colors=SOFT, length=0, labelsize=9, pad=7)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    for name, side in axes.spines.items():
        side.set_visible(name == "bottom")
        side.set_color(LINE)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=SOFT, fontsize=9)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    out = io.BytesIO()
    drawn.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
