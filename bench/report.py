"""The report of 10,000 findings made by hand: its size, its first paint, what a filter takes. python -m bench.report [findings]

Real Chromium, from disk. A filter's time runs from the key press to the frame that shows its answer.
"""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from tests.tiny_report import arm, change, compared, control, finding, page_of

ROUNDS = 9
ANSWER = """([form, field, value]) => new Promise(done => {
  const start = performance.now(), input = document.querySelector(`#${form} [name=${field}]`);
  input.value = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""
FILTERS = {
    "a caption among the pairs": ("bar", "text", ("subject number 1", "")), "the pairs' order": ("bar", "sort", ("similarity", "l2")),
    "a similarity among the pairs": ("bar", "similarity", ("0.7", "")), "a caption among all rows": ("list", "text", ("number 12", "")),
    "a verdict among all rows": ("list", "verdict", ("none", "")),
}


def page(n: int) -> str:
    """The page of n findings, six in ten extracted, with pictures as large as the budget lets them be."""
    rng = np.random.default_rng(0)
    said = [(f"a photograph of subject number {i} in a long caption as people write them", float(rng.uniform(0.02, 0.15)), float(rng.uniform(0.2, 0.9)))
            for i in range(n)]
    n_found, n_controls = int(0.6 * n), int(0.02 * n)
    found = [finding(text, i, l2=l2, margin=4 * l2, similarity=s) for i, (text, l2, s) in enumerate(said[:n_found])]
    missed = [finding(text, i, is_extracted=False, match_type="none", margin=0.9, similarity=s)
              for i, (text, _, s) in enumerate(said[n_found + n_controls:], n_found + n_controls)]
    controls = [control(i) for i in range(n_found, n_found + n_controls)]
    return page_of([*found, *controls, *missed], [arm(), arm("held_out")], noise=rng, changes=[change(i) for i in range(450)], comparisons=[compared()])


def first_paint(page: Page, file: Path) -> float:
    """Milliseconds to the first contentful paint."""
    page.goto(file.as_uri(), wait_until="load")
    found = page.wait_for_function("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    return float(found.json_value())


def main() -> None:
    """Print a table."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    start = time.perf_counter()
    text = page(n)
    built = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "report.html"
        file.write_text(text, encoding="utf-8")
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        shown = chromium.new_page(viewport={"width": 1400, "height": 1000})
        paints = [first_paint(shown, file) for _ in range(ROUNDS)]
        print(f"| {n:,} findings | |\n|---|---|\n| size | {file.stat().st_size / 1e6:.2f} MB |\n| filled in | {built:.1f} s |")
        print(f"| first paint | {statistics.median(paints) / 1000:.2f} s ({min(paints) / 1000:.2f} to {max(paints) / 1000:.2f}) |")
        for name, (form, field, values) in FILTERS.items():
            times = [shown.evaluate(ANSWER, [form, field, value]) for _ in range(ROUNDS) for value in values]
            print(f"| {name} | {statistics.median(times):.0f} ms ({min(times):.0f} to {max(times):.0f}) |")
        chromium.close()


if __name__ == "__main__":
    main()
