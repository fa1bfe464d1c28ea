"""The two pictures of docs/site.md: `python docs/build/site_pictures.py`.

The site of the committed results is built aside and its leaderboard photographed by a Chromium that
is installed, wide and light, and as on a phone and dark.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from bnnbench.site.build import build

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LOOKS = {
    "site_wide": {"viewport": {"width": 1280, "height": 1400}, "color_scheme": "light"},
    "site_phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}


def main() -> None:
    """Write both pictures."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit("no browser is installed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        empty, out = Path(folder) / "logs", Path(folder) / "site"
        build(ROOT, ROOT / "results", empty, empty, out)
        found = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for name, looks in LOOKS.items():
            page = found.new_context(**looks).new_page()
            page.goto(f"{out.as_uri()}/index.html", wait_until="networkidle")
            page.screenshot(path=ROOT / "docs" / f"{name}.png")
        found.close()


if __name__ == "__main__":
    main()
