"""Templates filled for people: numbers as they are read, hostile text escaped."""

from math import ceil
from pathlib import Path
from typing import Any

JOINERS = "\u200c\u200d"  # of letters and of emoji


def percent(share: float | None) -> str:
    """A share as people read it: whole percents, one digit more near the ends, so that only none is 0 % and only all are 100 %."""
    if share is None:
        return "not measured"
    if 0.995 <= share < 1:
        return "over 99.9 %" if share >= 0.9995 else f"{100 * share:.1f} %"
    if 0 < share < 0.01:
        return "under 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"
    return f"{100 * share:.0f} %"


def at_most(share: float | None) -> str:
    """An upper bound as people read it: rounded up, so that the sentence never says less than was measured."""
    if share is None:
        return "not bounded"
    digits = 1 if 0 < share < 0.01 else 0
    return f"{ceil(round(100 * share * 10**digits, 6)) / 10**digits:.{digits}f} %"


def named(text: str) -> str:
    """A caption or a name as it is; where nothing of it can be seen, a word that says so: a heading or a link is never empty."""
    return text if any(c.isprintable() and c != " " for c in text) else "(blank)"


def escaped_markdown(text: str) -> str:
    """Text that Markdown and HTML show as it is: no markup, no table cell, no automatic link."""
    plain = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    marked = "".join(f"\\{c}" if c in "\\`*_{}[]#|~@" else c for c in plain).replace(":/", "\\:/").replace("www.", "www\\.")
    marked = "".join(c if c.isprintable() or c in JOINERS else f"&#{ord(c)};" for c in marked)  # a source's reader shall see what turns its lines
    return f"\\{marked}" if marked.startswith(("-", "+", "=")) else marked


def rendered(template: str, content: dict[str, Any], *, html: bool) -> str:
    """A template of this folder or of pages/ filled; undefined names are errors, HTML is escaped."""
    import jinja2
    from markupsafe import Markup

    here = Path(__file__).parent
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader([here, here / "pages"]), autoescape=html, undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    environment.globals["inlined"] = lambda name: Markup((here / "pages" / name).read_text(encoding="utf-8"))  # our own style and script, nobody's text
    environment.filters |= {"percent": percent, "at_most": at_most, "md": escaped_markdown, "grouped": "{:,}".format, "named": named,
                            "unbroken": lambda text: str(text).replace(" %", "\u00a0%"),
                            "dashed": lambda text: text.replace("-", "–"), "worded": lambda text: text.replace("_", " "),
                            "cut": lambda text, n: text if len(text) <= n else f"{text[:n]}…",
                            "fixed": lambda value, digits: "–" if value is None else f"{value:.{digits}f}"}
    return environment.get_template(template).render(content)
