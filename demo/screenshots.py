"""Retake the screenshot of the page in docs/: python -m demo.screenshots (needs Playwright)."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

WIDTH = 1280  # pixels of the window
KEPT = 840  # pixels of the picture, as wide as GitHub shows it
MARGIN = 16  # pixels below the maps
QUALITY = 20  # of the WebP: text stays sharp
PATIENCE = 300_000  # ms, for the count on a slow computer


# A picture that is fetched but not yet decoded would be missing from the screenshot.
DECODED = "Promise.all([...document.images].map(one => one.decode().catch(() => null)))"


def take(address: str, folder: Path, browser: Any) -> Path:
    """Take a screenshot of the page at `address` with a counted scene, down to its maps; return
    the file's path."""
    path = folder / "page.webp"
    context = browser.new_context(color_scheme="light", viewport={"width": WIDTH, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.locator("#drawn button").last.click()
    page.wait_for_selector("#overlay img")
    page.wait_for_timeout(500)
    page.evaluate(DECODED)
    box = page.locator("#overlay").bounding_box()
    photograph = page.screenshot(
        full_page=True,
        clip={"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + MARGIN},
    )
    context.close()
    with Image.open(io.BytesIO(photograph)) as picture:
        small = picture.convert("RGB").resize((KEPT, round(picture.height * KEPT / picture.width)))
    # WebP takes a tenth of a PNG's bytes, and git keeps them for ever
    small.save(path, quality=QUALITY, method=6)
    return path


def main() -> None:
    """Serve the page on this machine, take the screenshot and stop."""
    from playwright.sync_api import sync_playwright

    import app
    from csrnet_hub import CrowdCounter

    page = app.build_app(CrowdCounter.from_pretrained())
    options = app.launch_options() | {"quiet": True, "prevent_thread_lock": True}
    try:
        address = page.launch(server_name="127.0.0.1", **options)[1]
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            print(take(address, Path(app.__file__).parent / "docs", browser))
    finally:
        page.close()


if __name__ == "__main__":
    main()
