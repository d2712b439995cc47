"""The audit card as a Markdown renderer shows it: a section with two whole tables, and of hostile captions nothing but their text."""

from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tasks import _pages
from tests.test_audit_schema import made
from tests.tiny_audit import V1, V2, put_project

HOSTILE = [
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "[click](javascript:alert(1))", "![x](http://a.example/x.png)", "a | b | c", "\\| x",
    "`code` **bold** _it_ ~~gone~~", "first line\n\n# a heading", "- item",
    "&lt;b&gt; &amp;", "[ref]: http://a.example", "<http://a.example>", "***", "a\u202eb",
]


class Shown(HTMLParser):
    """Tags, and the text of each cell."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def card(release: str, captions: list[str]) -> str:
    """The card of a tiny audit whose finding comes back once for each caption."""
    audit = made(release)
    audit["findings"] = [audit["findings"][0] | {"caption": caption} for caption in captions]
    return _pages.rendered("audit_card.md.jinja", {"audit": audit, "in_card": audit["findings"]}, html=False)


def shown(text: str) -> Shown:
    return Shown(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text))


@pytest.fixture
def project(in_folder: Path) -> Path:
    put_project()
    return in_folder


def test_a_card_is_a_section_with_whole_tables(project: Path) -> None:
    found = shown(card(V1, ["a cat"]))
    assert found.tags == {"h2", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert [len(row) for row in found.rows] == [6] * 6 and found.rows[-1][0].strip() == "a cat"
    assert shown(card(V2, [])).tags == found.tags, "without a copy the arms stand all the same"


@pytest.mark.parametrize("caption", HOSTILE)
def test_a_hostile_caption_is_its_own_text_in_one_cell(project: Path, caption: str) -> None:
    found = shown(card(V1, [caption, "the next one"]))
    assert found.tags == {"h2", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert all(len(row) == 6 for row in found.rows)
    assert [" ".join(unescape(row[0]).split()) for row in found.rows[-2:]] == [" ".join(unescape(caption).split()), "the next one"]
