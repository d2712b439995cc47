"""Recall against evaluations, as an SVG of one panel per class of rates."""

import math

COLOURS = ("#888888", "#1b6ca8", "#c77d1e", "#2a8a4a")
WIDTH, HEIGHT, LEFT, TOP = 260, 220, 46, 34  # of a panel, and where its axes begin
LEAST = 0.01  # share of the published evaluations at the left end


def svg(panels: dict[str, dict[str, list[tuple[float, float]]]]) -> str:
    """Panels by title, in them points (share of evaluations, recall) by way; of each way the points that no cheaper one beats are joined."""
    ways = list(next(iter(panels.values())))
    total = (WIDTH + LEFT + 14) * len(panels)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {HEIGHT + TOP + 70}" font-family="sans-serif" font-size="11">'
             f'<rect width="{total}" height="{HEIGHT + TOP + 70}" fill="white"/>']
    for number, (title, of_panel) in enumerate(panels.items()):
        parts += [f'<g transform="translate({number * (WIDTH + LEFT + 14) + LEFT},{TOP})">', *_axes(title)]
        for colour, way in zip(COLOURS, ways, strict=False):
            parts += _way(of_panel[way], colour)
        parts.append("</g>")
    for number, (colour, way) in enumerate(zip(COLOURS, ways, strict=False)):
        x = LEFT + 190 * number
        parts.append(f'<circle cx="{x}" cy="{HEIGHT + TOP + 52}" r="4" fill="{colour}"/><text x="{x + 9}" y="{HEIGHT + TOP + 56}">{way}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _x(share: float) -> float:
    return WIDTH * (1 - math.log(max(share, LEAST)) / math.log(LEAST))


def _axes(title: str) -> list[str]:
    made = [f'<text x="{WIDTH / 2}" y="-14" text-anchor="middle" font-weight="bold">{title}</text>',
            f'<text x="{WIDTH / 2}" y="{HEIGHT + 34}" text-anchor="middle">share of the published evaluations</text>']
    for share in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1):
        made.append(f'<path d="M{_x(share):.1f} 0V{HEIGHT}" stroke="#eee"/><text x="{_x(share):.1f}" y="{HEIGHT + 15}" text-anchor="middle">{share:.0%}</text>')
    for recall in (0, 0.25, 0.5, 0.75, 1):
        y = HEIGHT * (1 - recall)
        made.append(f'<path d="M0 {y}H{WIDTH}" stroke="#eee"/><text x="-5" y="{y + 4}" text-anchor="end">{recall:.0%}</text>')
    return [*made, f'<path d="M0 {HEIGHT * 0.05:.1f}H{WIDTH}" stroke="#bbb" stroke-dasharray="3 3"/>']


def _way(points: list[tuple[float, float]], colour: str) -> list[str]:
    best: list[tuple[float, float]] = []
    for share, recall in sorted(points):
        if not best or recall > best[-1][1]:
            best.append((share, recall))
    line = " ".join(f"{_x(share):.1f},{HEIGHT * (1 - recall):.1f}" for share, recall in best)
    dots = [f'<circle cx="{_x(share):.1f}" cy="{HEIGHT * (1 - recall):.1f}" r="2.5" fill="{colour}" fill-opacity="0.6"/>' for share, recall in points]
    return [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>', *dots]
