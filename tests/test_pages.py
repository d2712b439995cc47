"""Shares as people read them; text that Markdown and HTML show as it is."""

import pytest

from tasks import _pages


def test_an_upper_bound_is_never_rounded_down() -> None:
    shares = (0.0, 0.0031, 0.0601, 0.07, 1.0)
    assert [_pages.at_most(x) for x in shares] == ["0 %", "0.4 %", "7 %", "7 %", "100 %"]
    assert [_pages.percent(x) for x in shares] == ["0 %", "0.3 %", "6 %", "7 %", "100 %"]
    assert [_pages.percent(x) for x in (0.0004, 0.9949, 0.9964, 0.9999)] == ["under 0.1 %", "99 %", "99.6 %", "over 99.9 %"]
    assert (_pages.at_most(None), _pages.percent(None)) == ("not bounded", "not measured")


@pytest.mark.parametrize(("text", "shown"), [
    ("a *cat* | <b>", "a \\*cat\\* \\| &lt;b&gt;"),
    ("- no list", "\\- no list"),
    ("a\u202eb \x1b[31m \U0001f469\u200d\U0001f680", "a&#8238;b &#27;\\[31m \U0001f469\u200d\U0001f680"),
    ("http://a.example and www.b.example", "http\\://a.example and www\\.b.example"),
])
def test_markdown_shows_a_caption_as_it_is(text: str, shown: str) -> None:
    assert _pages.escaped_markdown(text) == shown
