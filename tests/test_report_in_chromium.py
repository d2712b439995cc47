"""The report as a person has it: opened from disk in a real Chromium, off the network, with findings made by hand."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tasks import _remedies
from tests.test_remedies import POLICIES, RATES, entries
from tests.tiny_report import NOT_COMPARED, PROTOCOL, arm, change, clique_alone, compared, control, finding, page_of, unsampled

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
HOSTILE = "</script></h4><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>" + "w" * 300
FINDINGS = [
    finding("a red Cat", 1, l2=0.04, l2_band="0.05", margin=0.5, similarity=0.7, n_copies=20),
    finding("a dog", 2, l2=0.06, margin=0.2, similarity=0.9, n_copies=5),
    finding("a cat asleep", 3, l2=0.07, margin=0.3, similarity=0.8, n_copies=50), finding("a print", 4, match_type="template", l2=0.2, n_copies=7),
    finding(HOSTILE, 5, match_type="near_copy", image_url="javascript:document.title='owned'", l2=0.12, margin=0.8, similarity=0.65),
    *(finding(f"a miss {i}", i, is_extracted=False, match_type="none", l2=0.3, margin=0.95) for i in range(30, 34)),
    *(control(i) for i in range(100, 106)), unsampled(110)]
SUMMARY = [arm(k=5, n_prompts=9), arm("held_out"), arm(copies_bin="4-9", k=3)]
REVIEWS = {"n": 2, "n_pairs": 1, "curve": [[1.0, 0.025, 1.0]], "reviewers": [
    {"reviewer": "=ada", "n_pairs": 1, "n_copies": 1, "n_decoys": 1, "n_decoys_called": 0, "n_person": 0, "n_trademark": 0,
     "kappa": 1.0, "kappa_low": -0.1, "kappa_high": 1.0}]}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    changes, comparisons = [change(3), change(2, was_drawn=False), change(5)], [compared(), compared(arm="duplicated")]
    remedies = _remedies.remedies(RATES, POLICIES, entries(2), SUMMARY)
    path.write_text(page_of(FINDINGS, SUMMARY, changes=changes, comparisons=comparisons, reviews=REVIEWS, remedies=remedies))
    return path


class Open:
    """A page, all that it asked for and all that it complained of."""

    def __init__(self, browser: Browser, file: Path, **how: Any) -> None:
        self.context = browser.new_context(offline=True, accept_downloads=True, **how)
        self.page, self.asked, self.complaints = self.context.new_page(), list[str](), list[str]()
        self.page.set_default_timeout(60_000)
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on("console", lambda m: self.complaints.append(m.text))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on("dialog", lambda d: self.complaints.append(d.message))
        self.page.goto(file.as_uri())
        self.page.wait_for_function("document.getElementById('rows-count').textContent !== ''")


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Open]:
    it = Open(browser, file)
    yield it
    it.context.close()
    assert not it.complaints
    assert {url.split(",")[0].split("?")[0] for url in it.asked} <= {file.as_uri(), "data:image/webp;base64"}, "no request beyond the file"


@pytest.fixture
def page(opened: Open) -> Page:
    return opened.page


def shown(page: Page) -> list[str]:
    """Captions of the pairs in sight, in order."""
    return page.eval_on_selector_all(".band-of .pair", "items => items.filter(i => i.checkVisibility()).map(i => i.querySelector('h4').textContent)")


def listed(page: Page) -> list[str]:
    return page.eval_on_selector_all("#rows-body tr", "rows => rows.map(r => r.cells[0].textContent)")


def test_pairs_are_filtered_by_match_copies_similarity_caption_and_what_is_new(page: Page) -> None:
    assert shown(page)[:3] == ["a red Cat", "a dog", "a cat asleep"] and page.inner_text("#count") == "5 of 5 shown"
    page.fill("#bar [name=text]", "CAT")
    assert shown(page) == ["a red Cat", "a cat asleep"] and page.inner_text("#count") == "2 of 5 shown"
    page.fill("#bar [name=copies]", "30")
    assert shown(page) == ["a cat asleep"]
    page.fill("#bar [name=text]", "")
    page.fill("#bar [name=copies]", "")
    page.fill("#bar [name=similarity]", "0.85")
    assert shown(page) == ["a dog"]
    page.fill("#bar [name=similarity]", "")
    page.select_option("#bar [name=type]", "template")
    assert shown(page) == ["a print"]
    page.select_option("#bar [name=type]", "new")
    assert shown(page)[:2] == ["a dog", "a cat asleep"] and len(shown(page)) == 3


@pytest.mark.parametrize(("order", "first"), [("l2", "a dog"), ("margin", "a dog"), ("copies", "a cat asleep"), ("similarity", "a dog"), ("rate", "a dog")])
def test_pairs_are_sorted_within_their_band(page: Page, order: str, first: str) -> None:
    page.select_option("#bar [name=sort]", "copies" if order == "l2" else "l2")
    page.select_option("#bar [name=sort]", order)
    assert shown(page)[0] == "a red Cat", "the closest band stays first"
    assert shown(page)[1] == first


def test_pictures_are_blurred_on_demand(page: Page) -> None:
    blur = lambda: page.eval_on_selector(".pair img", "img => getComputedStyle(img).filter")
    assert blur() == "none"
    page.check("#bar [name=blur]")
    assert "blur" in blur()


def test_all_prompts_are_rows_that_are_filtered_sorted_and_lead_to_their_pair(page: Page) -> None:
    assert page.inner_text("#rows-count") == "16 of 16 prompts" and len(listed(page)) == 16
    page.select_option("#list [name=verdict]", "extracted")
    page.select_option("#list [name=arm]", "duplicated")
    assert listed(page)[:3] == ["a dog", "a cat asleep", "a print"]
    header = page.locator("#rows-table th", has_text="copies")
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "descending" and listed(page)[0] == "a cat asleep"
    header.get_by_role("button").press("Enter")
    assert header.get_attribute("aria-sort") == "ascending" and listed(page)[0] == "a dog"
    page.fill("#list [name=text]", "asleep")
    page.click("#rows-body a")
    assert page.url.endswith("#p3") and page.eval_on_selector("#p3", "pair => pair.matches(':target')")


def begin(page: Page, reviewer: str = "ada") -> None:
    page.get_by_role("button", name="Review blind").press("Enter")
    page.fill("#review [name=reviewer]", reviewer)
    page.keyboard.press("Enter")


def saved(page: Page, to: Path) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename == "reviews.csv"
    download.value.save_as(to)
    with to.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_person_labels_pairs_and_decoys_by_keys_and_saves_them(page: Page, tmp_path: Path) -> None:
    begin(page, '=HYPERLINK("x"), a')
    count = lambda: page.inner_text("#review-count")
    assert count() == "1 of 10, 0 labelled"
    for key in ("p", "1", "2", "t", "3", "4", "4"):
        page.keyboard.press(key)
    assert count() == "6 of 10, 5 labelled"
    page.keyboard.press("u")
    assert count() == "5 of 10, 4 labelled"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("1")  # instead of 4
    rows = saved(page, tmp_path / "reviews.csv")
    assert list(rows[0]) == ["release", "finding_id", "label", "is_person", "is_trademark", "reviewer", "protocol_digest"]
    assert [(r["label"], r["is_person"], r["is_trademark"]) for r in rows] == [
        ("copy", "true", "false"), ("substantially_similar", "false", "false"), ("template", "false", "true"), ("copy", "false", "false")]
    assert {(r["release"], r["reviewer"], r["protocol_digest"]) for r in rows} == {("v1", "'=HYPERLINK(\"x\"), a", PROTOCOL)}
    for _ in range(6):
        page.keyboard.press("4")
    everything = saved(page, tmp_path / "all.csv")
    ids = [int(r["finding_id"]) for r in everything]
    assert len(set(ids)) == 10 and {i for i in ids if i < 100} == {1, 2, 3, 4, 5} and len([i for i in ids if i >= 100]) == 5
    assert "All 10 labelled" in count()


def test_a_review_shows_two_pictures_and_a_caption_and_nothing_of_what_the_audit_said(page: Page) -> None:
    begin(page)
    texts = set()
    for _ in range(10):
        texts.add(page.inner_text("#review"))
        box = page.locator("#review").bounding_box()
        assert box and (box["x"], box["y"]) == (0, 0) and box["width"] >= page.viewport_size["width"] - 20, "it covers the page"
        assert page.eval_on_selector("#review-a", "img => img.complete && img.naturalWidth > 0 && img.alt") == "First picture"
        page.keyboard.press("4")
    said = " ".join(texts).lower()
    assert not [word for word in ("verbatim", "margin", "l2", "extracted", "held", "generated", "training", "decoy", "seed") if word in said]
    assert page.evaluate("document.activeElement.closest('dialog')?.id") == "review"
    page.keyboard.press("Escape")
    assert not page.is_visible("#review")


def test_a_reviewer_can_be_sent_past_the_verdict(browser: Browser, file: Path) -> None:
    page = browser.new_page()
    page.goto(f"{file.as_uri()}#blind")
    assert page.is_visible("#review-start") and page.evaluate("document.activeElement.name") == "reviewer"
    page.close()


def test_a_review_goes_on_after_the_page_was_closed(page: Page) -> None:
    begin(page)
    for key in "12":
        page.keyboard.press(key)
    page.reload()
    page.get_by_role("button", name="Review blind").press("Enter")
    assert page.input_value("#review [name=reviewer]") == "ada"
    page.keyboard.press("Enter")
    assert page.inner_text("#review-count") == "3 of 10, 2 labelled"


def test_a_review_works_where_a_page_from_disk_has_no_storage(browser: Browser, file: Path, tmp_path: Path) -> None:
    context = browser.new_context(offline=True)
    context.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('denied', 'SecurityError'); } });")
    page = context.new_page()
    page.goto(file.as_uri())
    begin(page)
    page.keyboard.press("4")
    assert [r["label"] for r in saved(page, tmp_path / "reviews.csv")] == ["not_a_copy"]
    context.close()


def test_hostile_captions_and_addresses_run_nothing_and_lead_nowhere(page: Page) -> None:
    page.locator("#p5 summary").click()
    assert page.title() == "Memorization audit of v1" and HOSTILE[:60] in page.inner_text("#p5 h4")
    assert "javascript:document.title" in page.inner_text("#p5 .places")
    links = page.eval_on_selector_all("a", "all => all.map(a => a.getAttribute('href'))")
    assert links and all(link.startswith("#") for link in links) and page.locator("img[src=x]").count() == 0
    begin(page)
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    assert page.title() == "Memorization audit of v1"


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_screen(browser: Browser, file: Path, width: int) -> None:
    it = Open(browser, file, viewport={"width": width, "height": 800})
    for _ in range(2):
        assert it.page.evaluate("document.documentElement.scrollWidth") <= width
        assert it.page.evaluate("document.getElementById('review').scrollWidth") <= width
        if not it.page.is_visible("#review"):
            begin(it.page)
    it.context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 400), ("dark", 1400)])
@pytest.mark.parametrize("where", ["list", "review"])
def test_axe_finds_no_serious_problem(browser: Browser, file: Path, scheme: str, width: int, where: str) -> None:
    it = Open(browser, file, color_scheme=scheme, reduced_motion="reduce", viewport={"width": width, "height": 800})
    paper = it.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is (scheme == "light")
    if where == "review":
        it.page.get_by_role("button", name="Review blind").click()
        assert not serious(it.page)
        it.page.keyboard.press("Escape")
        begin(it.page)
        it.page.keyboard.press("3")
    else:
        it.page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
    assert not serious(it.page)
    assert not it.complaints
    it.context.close()


def serious(page: Page) -> list[str]:
    """What axe-core finds serious or critical, with the elements."""
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {[n['html'][:200] for n in v['nodes'][:3]]}" for v in found if v["impact"] in ("serious", "critical")]


def test_the_page_prints_its_pairs_without_its_controls(page: Page) -> None:
    page.emulate_media(media="print")
    assert not page.is_visible("#bar") and not page.is_visible("nav") and page.is_visible("#p1") and not page.is_visible("#review")


def test_without_scripts_verdict_figures_and_pairs_can_be_read(browser: Browser, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.is_visible("h1") and page.locator(".chart svg[role=img]").count() >= 6 and page.is_visible("#p1") and page.is_visible("noscript p")
    context.close()


@pytest.mark.parametrize(("findings", "summary"), [
    ([control(1), unsampled(2)], [arm("held_out")]),
    ([unsampled(3, arm="duplicated")], [arm(k=0)]),
    ([finding()], [arm(controls=0)]),
    ([clique_alone(is_compared=False, hit_rate=None)], [arm("custom", k=0, controls=0) | NOT_COMPARED]),
], ids=["controls_alone", "nothing_found", "no_controls", "no_training_set"])
def test_a_page_of_every_case_opens_without_a_complaint(
        browser: Browser, tmp_path: Path, findings: list[dict[str, Any]], summary: list[dict[str, Any]]) -> None:
    path = tmp_path / "report.html"
    path.write_text(page_of(findings, summary))
    it = Open(browser, path)
    assert it.page.inner_text("#rows-count") == f"{len(findings)} of {len(findings)} prompts" and not it.complaints
    assert (it.page.locator("#review-open").count() == 1) is findings[0]["is_extracted"]
    it.context.close()


def test_ten_thousand_findings_are_a_page_under_eight_megabytes_that_works(browser: Browser, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = [finding(f"a photograph of subject number {i} in a long caption as people write them", i, l2=float(rng.uniform(0.02, 0.15)),
                     margin=float(rng.uniform(0.1, 0.7))) for i in range(6_000)]
    missed = [finding(f"another caption {i}", i, is_extracted=False, match_type="none", margin=float(rng.uniform(0.7, 1))) for i in range(6_000, 9_800)]
    findings = [*found, *missed, *(control(i) for i in range(9_800, 10_000))]
    path = tmp_path / "report.html"
    path.write_text(page_of(findings, SUMMARY, noise=rng, changes=[change(i) for i in range(450)], comparisons=[compared()]))
    assert path.stat().st_size < 8_000_000
    it = Open(browser, path)
    assert it.page.locator(".band-of .pair").count() == 500 and it.page.locator("[data-new]").count() == 450, "every regression has its pictures"
    assert it.page.inner_text("#rows-count") == "10,000 of 10,000 prompts, the first 50 shown"
    it.page.fill("#list [name=text]", "caption 9799")
    assert listed(it.page) == ["another caption 9799"] and not it.complaints
    it.context.close()
