"""Seconds and memory against rows, as an SVG with logarithmic axes."""

import math

COLOURS = ("#1b6ca8", "#c77d1e", "#2a8a4a", "#888888")
WIDTH, HEIGHT, LEFT, TOP = 300, 220, 56, 34  # of a panel, and where its axes begin


def svg(panels: dict[str, dict[str, list[tuple[float, float]]]]) -> str:
    """Panels by title ("seconds", "GB"), in them points (rows, value above 0) by way of searching; a power law is a line."""
    ways = list(next(iter(panels.values())))
    total, height = (WIDTH + LEFT + 14) * len(panels), HEIGHT + TOP + 70
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {height}" font-family="sans-serif" font-size="11">'
             f'<rect width="{total}" height="{height}" fill="white"/>']
    for number, (title, of_panel) in enumerate(panels.items()):
        points = [point for way in of_panel.values() for point in way]
        ends = [_decades([point[axis] for point in points]) for axis in (0, 1)]
        parts += [f'<g transform="translate({number * (WIDTH + LEFT + 14) + LEFT},{TOP})">', *_axes(title, ends)]
        for colour, way in zip(COLOURS, ways, strict=False):
            parts += _line(of_panel[way], ends, colour)
        parts.append("</g>")
    for number, (colour, way) in enumerate(zip(COLOURS, ways, strict=False)):
        x = LEFT + 170 * number
        parts.append(f'<circle cx="{x}" cy="{HEIGHT + TOP + 52}" r="4" fill="{colour}"/><text x="{x + 9}" y="{HEIGHT + TOP + 56}">{way}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _decades(values: list[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _at(value: float, ends: tuple[int, int], length: int) -> float:
    return length * (math.log10(value) - ends[0]) / (ends[1] - ends[0])


def _axes(title: str, ends: list[tuple[int, int]]) -> list[str]:
    made = [f'<text x="{WIDTH / 2}" y="-14" text-anchor="middle" font-weight="bold">{title}</text>',
            f'<text x="{WIDTH / 2}" y="{HEIGHT + 34}" text-anchor="middle">rows</text>']
    for power in range(ends[0][0], ends[0][1] + 1):
        x = _at(10.0**power, ends[0], WIDTH)
        made.append(f'<path d="M{x:.1f} 0V{HEIGHT}" stroke="#eee"/><text x="{x:.1f}" y="{HEIGHT + 15}" text-anchor="middle">{10**power:,}</text>')
    for power in range(ends[1][0], ends[1][1] + 1):
        y = HEIGHT - _at(10.0**power, ends[1], HEIGHT)
        made.append(f'<path d="M0 {y:.1f}H{WIDTH}" stroke="#eee"/><text x="-5" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    return made


def _line(points: list[tuple[float, float]], ends: list[tuple[int, int]], colour: str) -> list[str]:
    places = [(_at(rows, ends[0], WIDTH), HEIGHT - _at(value, ends[1], HEIGHT)) for rows, value in sorted(points)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
            *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places)]
