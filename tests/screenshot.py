"""docs/report.png, the first screen of the example's report as README shows it: python -m tests.screenshot [release] (after an audit)"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
WIDTH_PX, HEIGHT_PX = 1400, 1350


def main() -> None:
    """Write the picture."""
    report = ROOT / "reports" / (sys.argv[1] if len(sys.argv) > 1 else "v1") / "report.html"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page(viewport={"width": WIDTH_PX, "height": HEIGHT_PX}, color_scheme="light")
        page.goto(report.as_uri())
        page.screenshot(path=ROOT / "docs" / "report.png")
        chromium.close()


if __name__ == "__main__":
    main()
