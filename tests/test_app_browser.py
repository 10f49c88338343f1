"""The page as a visitor uses it, in headless Chromium. Skipped where there is none."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image, ImageDraw

pytest.importorskip("gradio", minversion="6")
pytest.importorskip("playwright")
import gradio as gr
from playwright.sync_api import Browser, Page, expect, sync_playwright

import app
from csrnet_hub import CrowdCounter, CSRNet

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",  # for root, as in many a CI
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
PATIENCE = 60_000  # ms; a busy machine is slow, not broken

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def counter(model: CSRNet) -> CrowdCounter:
    return CrowdCounter(model, device="cpu", name="untrained", max_pixels=100_000)


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Gradio's folder for uploads, away from the machine's own."""
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def url(counter: CrowdCounter, uploads: Path) -> Iterator[str]:
    page = app.build_app(counter)
    yield serve(page)
    page.close()


def serve(page: gr.Blocks) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = app.launch_options() | {"max_file_size": "200kb", "quiet": True}
    return page.launch(
        server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, **options
    )[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Page]:
    """The page, opened by a new visitor; no request may leave for another host."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_page(page, url)
    yield page
    context.close()
    assert asked
    hosts = {urlsplit(address).netloc for address in asked if address.startswith("http")}
    assert hosts == {urlsplit(url).netloc}


def open_page(page: Page, url: str) -> None:
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    expect(page.get_by_text(app.WAITING)).to_be_visible(timeout=PATIENCE)
    page.wait_for_selector("#photo input[type=file]", state="attached")


def choose(page: Page, file: Path) -> None:
    page.set_input_files("#photo input[type=file]", file)


def draw_scene(path: Path, people: int = 40, size: tuple[int, int] = (160, 112)) -> Path:
    picture = Image.new("RGB", size, (120, 130, 110))
    draw = ImageDraw.Draw(picture)
    places = np.random.default_rng(people).uniform(0, 1, (people, 2)) * size
    for x, y in places:
        draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=(int(x) % 256, 60, int(y) % 256))
    picture.save(path)
    return path


def test_photos_are_counted_as_by_the_library_one_after_the_other(
    visit: Page, counter: CrowdCounter, tmp_path: Path
) -> None:
    first, second = (draw_scene(tmp_path / f"{people}.png", people) for people in (5, 90))
    for photo in (first, second):
        count = counter.count(photo).count
        choose(visit, photo)  # nothing else to press
        exact = f"{count:,.2f} before rounding"
        expect(visit.locator(".exact")).to_have_text(exact, timeout=PATIENCE)
        expect(visit.locator(".people")).to_have_text(app.headline(count))
    assert counter.count(first).count != pytest.approx(count, abs=0.01)
    expect(visit.locator(".facts")).to_contain_text("160 × 112 pixels · model untrained · on cpu")
    pictures = visit.locator("#comparison img")
    expect(pictures).to_have_count(2)
    size = "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    assert [pictures.nth(i).evaluate(size) for i in range(2)] == [[160, 112]] * 2
    visit.get_by_role("button", name="Remove Image").click()
    expect(visit.get_by_text(app.WAITING)).to_be_visible(timeout=PATIENCE)
    expect(visit.locator("#comparison")).to_have_count(0)


def test_no_photo_and_bad_photos_get_a_sentence_and_the_old_count_goes(
    visit: Page, uploads: Path, tmp_path: Path
) -> None:
    press = visit.get_by_role("button", name="Count the people").click
    press()
    expect(visit.get_by_role("alert")).to_have_text(app.NO_PHOTO, timeout=PATIENCE)
    scene = draw_scene(tmp_path / "scene.png")
    choose(visit, scene)
    expect(visit.locator(".people")).to_be_visible(timeout=PATIENCE)
    cut, text, wide, large = (tmp_path / name for name in ("c.png", "t.jpg", "w.png", "l.jpg"))
    cut.write_bytes(scene.read_bytes()[:600])
    text.write_text("this is no photo\n" * 9)
    Image.new("RGB", (400, 300)).save(wide)
    large.write_bytes(bytes(300_000))
    for file, word in ((cut, "damaged"), (text, "text file"), (wide, "pixels")):
        choose(visit, file)
        expect(visit.get_by_role("alert")).to_contain_text(word, timeout=PATIENCE)
        expect(visit.locator(".people")).to_have_count(0)
        expect(visit.locator("#comparison")).to_have_count(0)
        said = visit.inner_text("body")
        assert str(uploads) not in said
        assert "Traceback" not in said
    choose(visit, large)
    expect(visit.get_by_text("exceed the maximum allowed size")).to_be_visible(timeout=PATIENCE)


def test_a_phone_in_dark_mode_shows_the_page_readably(
    browser: Browser, url: str, tmp_path: Path
) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = context.new_page()
    open_page(page, url)
    choose(page, draw_scene(tmp_path / "scene.png"))
    expect(page.locator(".people")).to_be_in_viewport(timeout=PATIENCE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # no sideways scrolling
    for words in (".people", ".exact", ".facts"):
        ink = page.locator(words).evaluate("element => getComputedStyle(element).color")
        assert brightness(ink) > 200
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert brightness(paper) < 40
    context.close()


def brightness(colour: str) -> float:
    """The mean of a CSS `rgb(...)`'s three values, 0 to 255."""
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


def test_photos_and_maps_are_removed_when_the_server_stops(
    browser: Browser, counter: CrowdCounter, uploads: Path, tmp_path: Path
) -> None:
    def kept() -> set[Path]:
        return {path for path in uploads.rglob("*") if path.is_file()}

    before = kept()
    server = app.build_app(counter)
    context = browser.new_context()
    page = context.new_page()
    open_page(page, serve(server))
    choose(page, draw_scene(tmp_path / "mine.png", 70, (152, 104)))
    expect(page.locator("#comparison img")).to_have_count(2, timeout=PATIENCE)
    context.close()
    assert len(kept() - before) == 3  # the upload and the slider's two pictures
    server.close()
    assert kept() == before
