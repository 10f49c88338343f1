"""The page as a visitor uses it, in headless Chromium.

Skipped where there is none, unless CSRNET_MUST_RUN=browser says that there has to be one.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", minversion="6")
pytest.importorskip("playwright")
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    Request,
    Route,
    expect,
    sync_playwright,
)

import app
from csrnet_hub import CountResult
from csrnet_hub.annotations import read_annotation
from csrnet_hub.regions import count_inside
from demo import annotate, batch, cards, compare, photo, screenshots, shared, turns, video, wanted
from demo.parts import DRAW_ONE

from .page import PlainCounter, Slow, dots, film, reds, serve

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",  # for root, as in many a CI
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    "--disable-gpu",
    "--use-fake-device-for-media-stream",  # a camera that films a test card
    "--use-fake-ui-for-media-stream",
]
PATIENCE = 60_000  # ms; a busy machine is slow, not broken

CAMERA_RUNS = "() => document.querySelector('#photo video')?.videoWidth > 0"

NO_HEADS_KEPT = "Object.keys(localStorage).every(key => !/csrnet-hub/.test(key))"

# A stranger's, with all that would have a browser fetch something.
CARD = """---
license: mit
---
# Ours
![a](http://192.0.2.1/a.png) !![b][b] <img src="http://192.0.2.1/c.png">
<p style="background: url(http://192.0.2.1/d.png)">Paragraph</p>
<video poster="http://192.0.2.1/e.png"></video><svg><image href="http://192.0.2.1/f.png"/></svg>
<style>h1 { background: url(http://192.0.2.1/g.png) }</style>
$$<img src=http://192.0.2.1/h.png>$$ $$\\includegraphics{http://192.0.2.1/i.png}$$

```x&#32;mermaid
flowchart TD
A@{ img: "http://192.0.2.1/j.png", label: "j" }
```

Terms of <the owner> apply.

The last line.

[b]: http://192.0.2.1/b.png
"""

# Whether an image has the size on the page that its shape gives it: 580 wide, or 480 high.
DRAWN_AS = """([image, width, height]) => {
    const box = image.getBoundingClientRect(), scale = Math.min(580 / width, 480 / height);
    const seen = Math.min(box.width / width, box.height / height);
    return Math.abs(seen - scale) < 0.02 * scale;
}"""


def find_chromium() -> str | None:
    """The system's, or the one that `playwright install chromium` brought."""
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return found
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).is_file() else None


CHROMIUM = find_chromium()
MUST_RUN = os.environ.get("CSRNET_MUST_RUN") == "browser"  # as .ci/run sets it
pytestmark = pytest.mark.skipif(CHROMIUM is None and not MUST_RUN, reason="needs Chromium")


@pytest.fixture(scope="module")
def counter() -> PlainCounter:
    counter = PlainCounter("plain")
    counter.max_pixels = 3_000_000  # the test card has 2.8
    return counter


@pytest.fixture(scope="module")
def url(counter: PlainCounter, uploads: Path) -> Iterator[str]:
    page = app.build_app(counter, PlainCounter("second", 2.0), cards=[CARD, None])
    yield serve(page, max_file_size="200kb")
    page.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def window(browser: Browser) -> Iterator[BrowserContext]:
    """A browser's window, which keeps Gradio's scripts from one visit to the next."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context
    context.close()


@pytest.fixture(scope="module")
def one_tab(window: BrowserContext) -> Page:
    """One tab for most visits: another there takes two fifths of the time of one in a new tab."""
    return window.new_page()


@pytest.fixture
def visit(
    window: BrowserContext, one_tab: Page, url: str, request: pytest.FixtureRequest
) -> Iterator[Page]:
    """The page, opened by a new visitor; no request may leave for another host.

    A test marked `own_tab` may listen to it, hold its requests or change how it looks.
    """
    page = window.new_page() if request.node.get_closest_marker("own_tab") else one_tab
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    page.on("request", note)
    open_page(page, url)
    page.evaluate("localStorage.clear()")  # what the visit before wrote as it was left
    yield page
    page.remove_listener("request", note)
    for opened in window.pages:
        if opened != one_tab:
            opened.close()
    one_tab.goto("about:blank")
    forget(window, url, one_tab)
    assert asked
    hosts = {urlsplit(address).netloc for address in asked if address.startswith("http")}
    assert hosts == {urlsplit(url).netloc}


def forget(window: BrowserContext, url: str, page: Page) -> None:
    """Take out what a window's pages have kept in the browser."""
    storage = window.new_cdp_session(page)
    storage.send("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "all"})
    storage.detach()
    window.clear_cookies()
    window.clear_permissions()


def open_page(page: Page, url: str) -> None:
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page.goto(url)
    expect(page.get_by_text(photo.WAITING)).to_be_visible()
    page.wait_for_selector("#photo input[type=file]", state="attached")


def choose(page: Page, file: Path, place: str = "#photo") -> None:
    page.set_input_files(f"{place} input[type=file]", file)


def hold(page: Page, requests: str = "**/gradio_api/upload?*") -> list[Route]:
    """The next of these requests, once there is one, for the test to let it go on; later ones do
    not wait."""
    held: list[Route] = []
    page.route(requests, lambda route: route.continue_() if held else held.append(route))
    return held


def wait_until(page: Page, condition: Callable[[], object]) -> None:
    for _ in range(PATIENCE // 100):
        if condition():
            break
        page.wait_for_timeout(100)
    assert condition()


def wait_stored(page: Page, heads: int) -> None:
    """Until the browser has stored so many heads of its only annotated photo."""
    page.wait_for_function(
        """heads => Object.keys(localStorage).some(key => key.startsWith("csrnet-hub heads ") &&
            JSON.parse(localStorage[key].replace(/^[0-9]* /, "")).length === heads)""",
        arg=heads,
    )


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).locator("visible=true").click()


def saved(page: Page, name: str) -> Path:
    """What a download button gives."""
    with page.expect_download() as download:
        page.get_by_text(name, exact=True).locator("visible=true").click()
    return Path(download.value.path())


def natural_size(picture: Locator) -> list[int]:
    size: list[int] = picture.evaluate(
        "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    )
    return size


def drag(page: Page, surface: Locator, *places: tuple[float, float]) -> None:
    """Press at the first place, move over the others, let go; shares of the surface's size."""
    surface.scroll_into_view_if_needed()
    box = surface.bounding_box()
    assert box
    for i, (x, y) in enumerate(places):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=3)
        if i == 0:
            page.mouse.down()
    page.mouse.up()


def test_photos_are_counted_as_by_the_library_one_after_the_other(
    visit: Page, counter: PlainCounter, tmp_path: Path
) -> None:
    first, second = (dots(tmp_path / f"{people}.png", people) for people in (5, 90))
    assert counter.count(first).count != pytest.approx(counter.count(second).count, abs=0.01)
    for file in (first, second):
        result = counter.count(file)
        choose(visit, file)  # nothing else to press
        expect(visit.locator("#number .exact")).to_have_text(f"{result.count:,.2f} before rounding")
        expect(visit.locator("#number .people")).to_have_text(shared.headline(result.count))
    expect(visit.locator("#number .range")).to_have_count(0)  # small: no range is known for it
    expect(visit.locator(".facts")).to_contain_text("160 × 112 pixels · model plain · on cpu")
    expect(visit.locator("#number .notice").first).to_contain_text("small")
    pictures = visit.locator("#comparison img")
    expect(pictures).to_have_count(2)
    expect(pictures.last).to_have_attribute("alt", re.compile("density map"))
    overlay = visit.locator("#overlay img")
    sizes = [natural_size(picture) for picture in (pictures.first, pictures.last, overlay)]
    assert sizes == [[160, 112]] * 3
    expect(overlay).to_have_attribute("alt", re.compile("jet colours over"))
    expect(visit.locator(".scale").first).to_contain_text("heads in 8 × 8 pixels")
    visit.get_by_role("button", name="Remove Image").first.click()
    expect(visit.get_by_text(photo.WAITING)).to_be_visible()
    expect(visit.locator("#comparison")).to_have_count(0)


@pytest.mark.parametrize("size", [(40, 30), (120, 400), (1500, 110)])
def test_the_pictures_of_one_photo_have_one_size_on_the_page_below_their_labels(
    visit: Page, tmp_path: Path, size: tuple[int, int]
) -> None:
    choose(visit, dots(tmp_path / "shape.png", size=size))
    overlay = visit.locator("#overlay img")
    expect(overlay).to_be_visible()
    expect(visit.locator("#comparison img")).to_have_count(2)
    natural_size(overlay)
    for picture in (visit.locator("#comparison img").first, overlay):
        visit.wait_for_function(DRAWN_AS, arg=[picture.element_handle(), *size])
    for name in ("comparison", "overlay"):
        label, picture = (
            visit.locator(f"#{name} {what}").first.bounding_box() for what in ("label", "img")
        )
        assert label
        assert picture
        assert label["y"] + label["height"] <= picture["y"] + 1


def test_looks_grid_parts_and_downloads_follow_the_visitor(
    visit: Page, counter: PlainCounter, tmp_path: Path
) -> None:
    file = dots(tmp_path / "mine.png")
    result = counter.count(file)
    choose(visit, file)
    overlay = visit.locator("#overlay img")
    expect(overlay).to_be_visible()
    before = overlay.get_attribute("src") or ""
    visit.locator("#peaks input").check()
    expect(overlay).not_to_have_attribute("src", before)
    rows = visit.locator("#grid table tr")
    expect(rows).to_have_count(5)  # a head, three rows, sums
    expect(rows.last.locator("th").last).to_have_text(f"{result.count:,.1f}")
    visit.locator("#grid input[type=range]").first.press("ArrowRight")
    expect(rows).to_have_count(6)
    expect(rows.last.locator("th").last).to_have_text(f"{result.count:,.1f}")
    box = visit.locator("#grid input[type=number]").first
    for typed, lines in (("", 3), ("999", 14)):  # as good as 1, the most
        box.fill(typed)
        expect(rows).to_have_count(lines)

    inside = visit.locator("#inside")
    expect(inside).to_contain_text(DRAW_ONE)
    surface = visit.locator("#part canvas")
    drag(visit, surface, (0.003, 0.003), (0.5, 0.5), (0.999, 0.999))
    whole = f"{result.count:,.2f} in the whole photo"
    expect(inside).to_contain_text(whole)
    numbers = [float(number) for number in re.findall(r"(\d+\.\d\d)", inside.inner_text())]
    assert numbers[0] == pytest.approx(result.count, rel=0.02)
    press(visit, "Free-hand")
    drag(visit, surface, (0.1, 0.1), (0.6, 0.1), (0.6, 0.6), (0.1, 0.6))
    expect(inside).not_to_contain_text(f"{numbers[0]:,.2f} inside")
    numbers = [float(number) for number in re.findall(r"(\d+\.\d\d)", inside.inner_text())]
    assert 0 < numbers[0] < 0.6 * result.count
    assert numbers[0] + numbers[1] == pytest.approx(result.count, abs=0.011)
    press(visit, "Clear")
    expect(inside).to_contain_text(DRAW_ONE)

    density = np.load(saved(visit, "Map (.npy)"))
    assert density.sum(dtype=np.float64) == pytest.approx(result.count)
    assert "mine.png" in saved(visit, "Row (CSV)").read_text("utf-8-sig")
    with Image.open(saved(visit, "Overlay (PNG)")) as picture:
        assert picture.size == (160, 112)


def copy(page: Page, file: Path) -> None:
    """A picture into the clipboard."""
    page.evaluate(
        """async text => {
            const blob = await (await fetch("data:image/png;base64," + text)).blob();
            await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
        }""",
        base64.b64encode(file.read_bytes()).decode(),
    )


def test_a_photo_can_be_pasted_or_taken(
    browser: Browser, url: str, counter: PlainCounter, tmp_path: Path
) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write", "camera"])
    page = context.new_page()
    open_page(page, url)
    file = dots(tmp_path / "pasted.png")
    copy(page, file)
    box = page.locator("#photo")
    box.get_by_label("Paste from clipboard").click()
    count = f"{counter.count(file).count:,.2f} before rounding"
    expect(page.locator("#number .exact")).to_have_text(count)
    box.get_by_label("Remove Image").click()
    expect(page.get_by_text(photo.WAITING)).to_be_visible()
    box.get_by_label("Capture from camera").click()
    box.get_by_text("Click to Access Webcam").click()
    page.wait_for_function(CAMERA_RUNS)
    box.get_by_label("capture photo").click()
    expect(page.locator("#number .people")).to_be_visible()
    expect(page.locator("#number .exact")).not_to_have_text(count)
    context.close()


def test_a_visitor_without_a_photo_or_a_mouse_counts_a_drawn_scene(visit: Page) -> None:
    example = visit.get_by_label("Drawn scene 1")
    example.focus()
    visit.keyboard.press("Enter")
    expect(visit.locator("#number .people")).to_be_visible()
    expect(visit.locator("#number .notice").first).to_contain_text("drawn, with 60 people")
    overlay = visit.locator("#overlay img")
    before = overlay.get_attribute("src") or ""
    slider = visit.locator("#opacity input[type=range]")
    slider.press("ArrowLeft")
    assert slider.evaluate("slider => getComputedStyle(slider).outlineStyle") == "solid"
    expect(overlay).not_to_have_attribute("src", before)
    surface = visit.locator("#part canvas")
    surface.focus()
    for key in ("Enter", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown", "Enter"):
        visit.keyboard.press(key)
    expect(visit.locator("#inside .exact")).to_contain_text("inside")
    unnamed = visit.evaluate(
        """() => [...document.querySelectorAll("button, input:not([type=file]), canvas, img")]
            .filter(one => one.checkVisibility() && !(one.ariaLabel || one.title || one.alt ||
                one.textContent.trim() || one.labels?.length || one.closest("[aria-label]") ||
                one.querySelector("img[alt]:not([alt=''])")))
            .map(one => one.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []  # a screen reader has a name for everything


def test_a_screen_reader_hears_each_answer_once_it_is_there(visit: Page) -> None:
    """What is put into an element is read out only if that was a live region before."""
    for name, place in (("Many photos", "batch-summary"), ("One photo", "number")):
        tab(visit, name)
        live = visit.locator(f"#{place} [aria-live=polite]")
        expect(live).to_have_attribute("aria-atomic", "true")
    live.evaluate("region => { window.before = region; }")
    visit.get_by_label("Drawn scene 1").click()
    expect(live.locator(".people")).to_be_visible()
    assert live.evaluate("region => region === window.before")


def test_a_counted_photo_is_printed_in_black_on_white_without_its_controls(
    browser: Browser, url: str
) -> None:
    page = browser.new_page(color_scheme="dark")
    open_page(page, url)
    page.get_by_label("Drawn scene 1").click()
    expect(page.locator("#overlay img")).to_be_visible()
    page.emulate_media(media="print", color_scheme="dark")
    for words in ("#number .people", "#grid td"):
        ink = page.locator(words).first.evaluate("element => getComputedStyle(element).color")
        assert brightness(ink) == 0
    assert brightness(page.evaluate("getComputedStyle(document.body).backgroundColor")) == 255
    for seen in ("#photo img", "#comparison img", "#overlay img", "#grid table"):
        expect(page.locator(seen).first).to_be_visible()
    for hidden in ("#opacity", "#drawn", "#parts", "footer"):
        expect(page.locator(hidden)).to_be_hidden()
    expect(page.get_by_role("button", name="Count the people")).to_be_hidden()
    page.close()


def test_nothing_moves_for_those_who_asked_for_stillness(browser: Browser, url: str) -> None:
    page = browser.new_page()
    open_page(page, url)
    button = page.get_by_role("button", name="Count the people")
    times = []
    for wish in ("no-preference", "reduce"):
        page.emulate_media(reduced_motion=wish)  # type: ignore[arg-type]
        taken = button.evaluate("element => getComputedStyle(element).transitionDuration")
        times.append(max(float(part.strip(" s")) for part in taken.split(",")))
    assert times[0] > 0.05
    assert times[1] < 0.001
    page.close()


def test_no_photo_and_bad_photos_get_a_sentence_and_the_old_count_goes(
    visit: Page, uploads: Path, tmp_path: Path
) -> None:
    press(visit, "Count the people")
    alert = visit.locator("#number [role=alert]")
    expect(alert).to_have_text(shared.NO_PHOTO)
    scene = dots(tmp_path / "scene.png")
    choose(visit, scene)
    expect(visit.locator("#number .people")).to_be_visible()
    cut, text, wide, large = (tmp_path / name for name in ("c.png", "t.jpg", "w.png", "l.jpg"))
    cut.write_bytes(scene.read_bytes()[:600])
    text.write_text("this is no photo\n" * 9)
    Image.new("RGB", (2000, 1600)).save(wide)
    large.write_bytes(bytes(300_000))
    for file, word in ((cut, "damaged"), (text, "text file"), (wide, "pixels")):
        choose(visit, file)
        expect(alert).to_contain_text(word)
        expect(visit.locator("#number .people")).to_have_count(0)
        expect(visit.locator("#comparison")).to_have_count(0)
        said = visit.inner_text("body")
        assert str(uploads) not in said
        assert "Traceback" not in said
    choose(visit, large)
    expect(visit.get_by_text("exceed the maximum allowed size")).to_be_visible()


def test_two_visitors_at_once_never_see_each_others_photos(
    browser: Browser, url: str, counter: PlainCounter, tmp_path: Path
) -> None:
    files = [dots(tmp_path / f"{people}.png", people) for people in (8, 60)]
    counts = [f"{counter.count(file).count:,.2f}" for file in files]
    assert counts[0] != counts[1]
    contexts = [browser.new_context() for _ in files]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        open_page(page, url)
    for page, file in zip(pages, files):
        choose(page, file)
    for page, count in zip(pages, counts):
        expect(page.locator("#number .exact")).to_contain_text(count)
    for page in pages:  # each asks for its session's photo again
        drag(page, page.locator("#part canvas"), (0.01, 0.01), (0.5, 0.9))
    for i, page in enumerate(pages):
        expect(page.locator("#inside")).to_contain_text(f"{counts[i]} in the whole photo")
    sources = [
        {image.get_attribute("src") for image in page.locator("#overlay img").all()}
        for page in pages
    ]
    assert not sources[0] & sources[1]
    for page, file in zip(pages, files):
        tab(page, "Annotate")
        choose(page, file, "#annotate-photo")
        expect(page.locator("#heads canvas")).to_be_visible()
    for page in pages:
        page.locator("#heads canvas").click()
        expect(page.locator("#heads-number")).to_contain_text("1 person")
    for context in contexts:
        context.close()


def test_many_photos_give_a_table_a_gallery_a_total_and_a_csv(
    visit: Page, counter: PlainCounter, tmp_path: Path
) -> None:
    tab(visit, "Many photos")
    press(visit, "Count all")
    expect(visit.locator("#batch-summary")).to_contain_text(batch.NO_PHOTOS)
    files = [dots(tmp_path / f"{people}.png", people) for people in (5, 30, 90)]
    total = sum(counter.count(file).count for file in files)
    bad = tmp_path / "bad.jpg"
    bad.write_text("no photo")
    visit.set_input_files("#batch-photos input[type=file]", [*files, bad])
    expect(visit.locator("#batch-photos").get_by_text("bad")).to_be_visible()
    press(visit, "Count all")
    expect(visit.locator("#batch-summary .people")).to_have_text(shared.headline(total))
    expect(visit.locator("#batch-summary")).to_contain_text("1 could not be counted")
    expect(visit.locator("#batch-table").get_by_text("This is a text file").first).to_be_visible()
    expect(visit.locator("#batch-gallery img")).to_have_count(3)
    expect(visit.locator("#histogram img")).to_be_visible()
    assert len(saved(visit, "Table (CSV)").read_text("utf-8-sig").splitlines()) == 5

    table = visit.locator("#batch-table")
    heading = table.get_by_role("columnheader", name="people").locator("visible=true").first
    heading.click()  # as the table's label says
    heading.get_by_label("Open header menu").or_(heading.locator("button")).last.click()
    visit.get_by_text("Sort descending").click()
    wait_until(
        visit, lambda: table.inner_text().index("90.png") < table.inner_text().index("5.png")
    )
    visit.locator("#batch-gallery button img").first.click()
    opened = visit.locator("#batch-gallery .preview")
    assert opened.bounding_box() == {"x": 0, "y": 0, "width": 1280, "height": 900}
    expect(opened.get_by_label("Share")).to_have_count(0)  # with huggingface.co
    opened.get_by_label("Close").click()
    expect(opened).to_have_count(0)


@pytest.mark.own_tab
def test_a_drawn_scene_is_compared_with_its_own_annotation(
    visit: Page, uploads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "demo.compare.draw_scene", lambda seed: _small_scene(seed)
    )  # within the counter's limit
    tab(visit, "Compare")
    press(visit, "Compare")
    errors = visit.locator("#errors")
    expect(errors).to_contain_text("no photo yet")
    press(visit, "Try a drawn scene")
    expect(errors).to_contain_text("annotated 40 people")
    expect(errors.locator(".notice")).to_contain_text(["drawn, with 40 people"])
    for name in ("truth", "predicted", "difference"):
        assert natural_size(visit.locator(f"#{name} img")) == [240, 160]
    expect(visit.locator("#error-table td")).to_have_count(16)
    for clear in ("Remove Image", "Clear"):  # no number is left beside another photo, or none
        visit.locator("#compare-photo, #annotation").get_by_label(clear).locator(
            "visible=true"
        ).click()
        expect(errors).to_contain_text(compare.WAITING)
        expect(visit.locator("#error-table td")).to_have_count(0)
        press(visit, "Try a drawn scene")
        expect(errors).to_contain_text("annotated 40 people")
    visit.locator("#compare-photo").get_by_label("Remove Image").click()
    choose(visit, dots(tmp_path / "no.csv.png"), "#compare-photo")
    expect(visit.locator("#compare-photo img")).to_be_visible()
    press(visit, "Compare")
    expect(errors).to_contain_text("annotated")
    choose(visit, dots(tmp_path / "other.png"), "#compare-photo")
    expect(errors).to_contain_text(compare.WAITING)
    rubbish = tmp_path / "rubbish.mat"
    rubbish.write_bytes(b"rubbish")
    visit.locator("#annotation").get_by_label("Clear").click()
    held = hold(visit)
    choose(visit, rubbish, "#annotation")
    expect(visit.locator("#annotation .uploading")).to_be_visible()
    press(visit, "Compare")  # it waits for the annotation
    expect(visit.get_by_role("button", name="Compare", exact=True)).to_have_attribute(
        "aria-busy", "true"
    )
    visit.wait_for_timeout(500)
    expect(errors).to_contain_text(compare.WAITING, timeout=1)
    held[0].continue_()
    expect(errors).to_contain_text("rubbish.mat cannot be read")
    assert str(uploads) not in errors.inner_text()


@pytest.mark.own_tab
def test_the_late_answer_for_a_bad_photo_takes_no_drawn_scene_out_of_its_box(
    visit: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demo.compare.draw_scene", lambda seed: _small_scene(seed))
    read, answer, begun = compare.read_photo, threading.Event(), []

    def slow(upload: Any, max_pixels: int | None) -> Any:
        begun.append(upload)
        assert answer.wait(PATIENCE / 1000)
        return read(upload, max_pixels)

    monkeypatch.setattr(compare, "read_photo", slow)
    tab(visit, "Compare")
    bad = dots(tmp_path / "bad.png")
    bad.write_bytes(bad.read_bytes()[:600])
    choose(visit, bad, "#compare-photo")
    expect(visit.get_by_role("button", name="Compare", exact=True)).to_be_enabled()
    press(visit, "Compare")
    wait_until(visit, lambda: begun)
    held = hold(visit, "**/run/predict*")  # a slow line
    press(visit, "Try a drawn scene")
    wait_until(visit, lambda: held)
    answer.set()
    expect(visit.locator("#errors [role=alert]")).to_contain_text("damaged")
    held[0].continue_()
    expect(visit.locator("#errors")).to_contain_text("annotated 40 people")
    expect(visit.locator("#compare-photo img")).to_be_visible()


def _small_scene(seed: int) -> tuple[Image.Image, np.ndarray]:
    from demo.scenes import draw_scene

    return draw_scene(40, (240, 160), seed)


def test_clicked_heads_are_saved_where_they_were_clicked(
    visit: Page, uploads: Path, tmp_path: Path
) -> None:
    tab(visit, "Annotate")
    choose(visit, dots(tmp_path / "IMG_5.png", size=(160, 112)), "#annotate-photo")
    surface = visit.locator("#heads canvas")
    expect(surface).to_be_visible()
    number = visit.locator("#heads-number")
    expect(number).to_contain_text("0 people")
    box = surface.bounding_box()
    assert box
    for x, y in ((0.25, 0.25), (0.5, 0.5), (0.9, 0.1)):
        surface.click(position={"x": x * box["width"], "y": y * box["height"]})
    expect(number).to_contain_text("3 people")
    expect(number).to_contain_text("sums to 3.00")
    press(visit, "Undo")
    expect(number).to_contain_text("2 people")
    press(visit, "Zoom in")  # by a half, about the middle
    surface.click(position={"x": 0.75 * box["width"], "y": 0.75 * box["height"]})
    expect(number).to_contain_text("3 people")
    surface.press("Backspace")
    expect(number).to_contain_text("2 people")
    surface.press("Enter")  # at the middle of what is seen
    expect(number).to_contain_text("3 people")
    press(visit, "Save the heads")
    file = saved(visit, "ShanghaiTech .mat").rename(tmp_path / "GT_IMG_5.mat")
    heads = read_annotation(file)
    assert heads == pytest.approx(np.array([[40, 28], [80, 56], [80, 56]]), abs=0.6)
    assert natural_size(visit.locator("#grown img")) == [160, 112]
    wait_for_files(
        visit, uploads, lambda files: [file.name for file in files].count("density.png") <= 2
    )


def test_the_keyboard_reaches_every_part_of_a_zoomed_photo(visit: Page, tmp_path: Path) -> None:
    tab(visit, "Annotate")
    choose(visit, dots(tmp_path / "IMG_6.png", size=(160, 112)), "#annotate-photo")
    surface = visit.locator("#heads canvas")
    expect(surface).to_be_visible()
    surface.press("+")
    for _ in range(120):  # by 10 pixels of the screen, far beyond its edge
        surface.press("ArrowRight")
    surface.press("Enter")
    for _ in range(3):  # and back at once: the mark has not left the screen
        surface.press("ArrowLeft")
    surface.press("Enter")
    expect(visit.locator("#heads-number")).to_contain_text("2 people")
    press(visit, "Save the heads")
    heads = read_annotation(saved(visit, "CSV").rename(tmp_path / "heads.csv"), "IMG_6.png")
    assert heads[0] == pytest.approx([160, 56], abs=1)
    assert 130 < heads[1][0] < 159


@pytest.mark.own_tab
def test_heads_that_are_not_saved_are_not_lost_without_a_question(
    visit: Page, tmp_path: Path
) -> None:
    asked: list[str] = []
    visit.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    for done in ("marked", "saved", "downloaded", "cleared"):
        tab(visit, "Annotate")
        choose(visit, dots(tmp_path / "IMG_7.png"), "#annotate-photo")
        if done == "marked":
            visit.locator("#heads canvas").click(position={"x": 50, "y": 50})
        expect(visit.locator("#heads-number")).to_contain_text("1 person")
        if done == "cleared":  # a browser may not have saved what was downloaded
            press(visit, "Clear")
            expect(visit.locator("#heads-number")).to_contain_text("0 people")
        if done in ("saved", "downloaded"):
            press(visit, "Save the heads")
            expect(visit.get_by_text("ShanghaiTech .mat", exact=True)).to_be_visible()
        if done == "downloaded":
            saved(visit, "JSON")
            visit.wait_for_timeout(1000)
        visit.reload()
        assert asked == (["beforeunload"] if done in ("marked", "saved") else [])
        asked.clear()


def waits(go_on: threading.Event, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, which answers once `go_on` is set."""

    def late(*args: Any, **options: Any) -> Any:
        assert go_on.wait(PATIENCE / 1000)
        return call(*args, **options)

    return late


@pytest.mark.own_tab
def test_a_head_marked_while_the_others_are_saved_is_kept_and_the_others_too(
    visit: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(annotate, "to_mat", waits(go_on, annotate.to_mat))
    visit.on("dialog", lambda dialog: dialog.accept())
    number, surface = visit.locator("#heads-number"), visit.locator("#heads canvas")
    for again in (False, True):
        tab(visit, "Annotate")
        choose(visit, dots(tmp_path / "mine.png"), "#annotate-photo")
        expect(number).to_contain_text("3 people" if again else "0 people")
        if not again:
            for clicks in (1, 2):
                surface.click(position={"x": 50 * clicks, "y": 50})
                expect(number).to_contain_text(f"{clicks} p")
            press(visit, "Save the heads")
            surface.click(position={"x": 70, "y": 90})
            expect(number).to_contain_text("3 people")
            go_on.set()
            visit.wait_for_timeout(500)
            expect(visit.locator("#heads-files")).to_be_hidden()  # they lack the third
            visit.reload()


def test_what_comes_late_for_a_photo_that_is_gone_is_left_out(
    visit: Page, uploads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    mapped = annotate.density_map

    def late_map(heads: Any, *rest: Any, **options: Any) -> Any:
        call = waits(go_on, mapped) if len(heads) else mapped
        return call(heads, *rest, **options)

    monkeypatch.setattr(annotate, "density_map", late_map)
    begun: set[str] = set()

    def late(name: str) -> None:
        call = waits(go_on, getattr(annotate, name))
        monkeypatch.setattr(annotate, name, lambda *given: begun.add(name) or call(*given))

    for name in ("to_mat", "read_heads"):
        late(name)
    number, surface = visit.locator("#heads-number"), visit.locator("#heads canvas")
    box, earlier = visit.locator("#annotate-photo"), tmp_path / "earlier.csv"
    earlier.write_text("x,y\n10,10\n20,20\n30,30\n")
    mine, other = dots(tmp_path / "mine.png"), dots(tmp_path / "other.png", size=(112, 112))
    tab(visit, "Annotate")
    choose(visit, mine, "#annotate-photo")
    expect(number).to_contain_text("0 people")
    surface.click(position={"x": 50, "y": 50})
    press(visit, "Save the heads")
    choose(visit, earlier, "#earlier")
    wait_until(visit, lambda: len(begun) == 2)  # all three are on their way
    visit.wait_for_timeout(300)
    choose(visit, other, "#annotate-photo")
    expect(surface).to_have_attribute("style", re.compile("aspect-ratio: 1 "))
    go_on.set()
    visit.wait_for_timeout(1000)
    expect(number).to_contain_text("0 people")
    expect(visit.get_by_text("ShanghaiTech .mat", exact=True)).to_be_hidden()
    assert not named(uploads, "GT_mine.mat")
    surface.click(position={"x": 50, "y": 50})
    expect(number).to_contain_text("1 person")
    go_on.clear()
    surface.click(position={"x": 90, "y": 50})
    visit.wait_for_timeout(300)
    box.get_by_label("Remove Image").click()
    expect(number).to_contain_text(annotate.WAITING)
    go_on.set()
    visit.wait_for_timeout(1000)
    expect(number).to_contain_text(annotate.WAITING)
    expect(visit.locator("#grown")).to_have_count(0)
    choose(visit, mine, "#annotate-photo")
    expect(visit.locator("#heads .canvas-hint b")).to_have_text("1 head is back; Clear removes it.")
    expect(number).to_contain_text("1 person")


def test_a_head_marked_at_the_moment_the_photo_appears_is_kept(visit: Page, tmp_path: Path) -> None:
    tab(visit, "Annotate")
    visit.evaluate(
        """() => {
            const surface = document.querySelector("#heads .canvas");
            new MutationObserver((_, observer) => {
                if (surface.hidden) return;
                observer.disconnect();
                const enter = new KeyboardEvent("keydown", { key: "Enter" });
                surface.querySelector("canvas").dispatchEvent(enter);
            }).observe(surface, { attributes: true });
        }"""
    )
    choose(visit, dots(tmp_path / "a.png"), "#annotate-photo")
    expect(visit.locator("#heads-number")).to_contain_text("1 person")


@pytest.mark.own_tab
def test_of_two_tabs_of_one_photo_the_heads_marked_last_are_kept(
    visit: Page, tmp_path: Path
) -> None:
    mine = dots(tmp_path / "mine.png")
    second = visit.context.new_page()
    open_page(second, visit.url)
    for page, people in ((visit, 2), (second, 1)):
        page.on("dialog", lambda dialog: dialog.accept())
        tab(page, "Annotate")
        choose(page, mine, "#annotate-photo")
        expect(page.locator("#heads-number")).to_contain_text(re.compile("people|person"))
        press(page, "Clear")
        for clicks in range(people):
            page.locator("#heads canvas").click(position={"x": 50 + 40 * clicks, "y": 50})
        expect(page.locator("#heads-number")).to_contain_text(shared.people(people))
    wait_stored(second, 1)
    visit.reload()
    tab(visit, "Annotate")
    choose(visit, mine, "#annotate-photo")
    expect(visit.locator("#heads-number")).to_contain_text("1 person")


def test_undo_takes_back_a_loaded_annotation_and_not_the_heads_before_it(
    visit: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(annotate, "read_heads", waits(go_on, annotate.read_heads))
    tab(visit, "Annotate")
    choose(visit, dots(tmp_path / "Fair & crowd (1).png"), "#annotate-photo")
    number = visit.locator("#heads-number")
    earlier = tmp_path / "earlier.csv"
    earlier.write_text("x,y\n10,10\n20,20\n30,30\n")
    for clicks in (1, 2):  # the second while the annotation is being read
        visit.locator("#heads canvas").click(position={"x": 50 * clicks, "y": 50})
        expect(number).to_contain_text(f"{clicks} p")
        if clicks == 1:
            choose(visit, earlier, "#earlier")
            expect(visit.locator("#earlier").get_by_role("link")).to_be_visible()
    go_on.set()
    expect(number).to_contain_text("5 people")
    expect(visit.locator("#earlier").get_by_role("link")).to_have_count(0)
    for left in ("2 people", "1 person"):
        press(visit, "Undo")
        expect(number).to_contain_text(left)
    press(visit, "Save the heads")
    with visit.expect_download() as download:
        visit.get_by_text("ShanghaiTech .mat", exact=True).click()
    assert download.value.suggested_filename == "GT_Fair & crowd (1).mat"


def test_undo_never_brings_back_the_heads_of_another_photo(visit: Page, tmp_path: Path) -> None:
    tab(visit, "Annotate")
    number, surface = visit.locator("#heads-number"), visit.locator("#heads canvas")
    choose(visit, dots(tmp_path / "a.png"), "#annotate-photo")
    for clicks in (1, 2, 3):
        surface.click(position={"x": 40 * clicks, "y": 50})
        expect(number).to_contain_text(f"{clicks} p")
    for button in ("right", "middle"):  # they mark nothing
        surface.click(position={"x": 50, "y": 60}, button=button)
    choose(visit, dots(tmp_path / "b.png", people=30), "#annotate-photo")
    expect(number).to_contain_text("0 people")
    surface.click(position={"x": 50, "y": 50})
    expect(number).to_contain_text("1 person")
    for _ in range(3):
        press(visit, "Undo")
    expect(number).to_contain_text("0 people")
    surface.click(position={"x": 60, "y": 60})
    expect(number).to_contain_text("1 person")


@pytest.mark.own_tab
def test_heads_that_are_not_saved_are_back_with_their_photo(visit: Page, tmp_path: Path) -> None:
    visit.on("dialog", lambda dialog: dialog.accept())
    number, surface = visit.locator("#heads-number"), visit.locator("#heads canvas")
    note, box = visit.locator("#heads .canvas-hint b"), visit.locator("#annotate-photo")
    (tmp_path / "next").mkdir()
    mine = dots(tmp_path / "clipboard.png", 40)
    other = dots(tmp_path / "next" / "clipboard.png", 41)  # of one name and one size
    tab(visit, "Annotate")
    choose(visit, mine, "#annotate-photo")
    expect(number).to_contain_text("0 people")
    expect(note).to_be_empty()
    surface.click(position={"x": 50, "y": 50})
    surface.click(position={"x": 90, "y": 50})
    expect(number).to_contain_text("2 people")
    ways: tuple[Callable[[], Any], ...] = (
        lambda: choose(visit, other, "#annotate-photo"),
        lambda: box.get_by_label("Remove Image").click(),
        visit.reload,
        lambda: choose(visit, mine, "#annotate-photo"),
    )
    for leave in ways:
        surface.click(position={"x": 70, "y": 70})
        expect(number).to_contain_text("3 people")
        leave()  # at once: the last click is kept too
        if leave is not ways[-1]:
            tab(visit, "Annotate")
            expect(number).to_contain_text(re.compile("0 people|Choose a photo"))
            expect(note).to_be_empty()
            choose(visit, mine, "#annotate-photo")
        expect(note).to_have_text("3 heads are back; Clear removes them.")
        expect(number).to_contain_text("3 people")
        visit.get_by_role("button", name="Erase").locator("visible=true").click()
        surface.click(position={"x": 70, "y": 70})
        expect(number).to_contain_text("2 people")
        expect(note).to_be_empty()
        visit.get_by_role("button", name="Erase").locator("visible=true").click()
    for _ in range(2):  # not those that came back
        press(visit, "Undo")
    expect(number).to_contain_text("3 people")
    press(visit, "Clear")
    expect(note).to_be_empty()
    expect(number).to_contain_text("0 people")
    choose(visit, mine, "#annotate-photo")  # Clear took them out of the browser too
    expect(number).to_contain_text("0 people")
    expect(note).to_be_empty()
    visit.wait_for_function(NO_HEADS_KEPT)


def test_a_browser_keeps_the_heads_of_few_photos_and_marks_without_room(
    visit: Page, tmp_path: Path
) -> None:
    tab(visit, "Annotate")
    number, surface = visit.locator("#heads-number"), visit.locator("#heads canvas")
    visit.evaluate(
        """() => {
            for (let i = 32; i > 10; i--) {
                localStorage["csrnet-hub heads 9x9 " + i] = i + " [[1,1]]";
            }
        }"""
    )
    keys = "Object.keys(localStorage).filter(key => key.startsWith('csrnet-hub')).sort().join()"
    keys += ".replace(/160x112 [0-9a-f]{16}/, 'of a.png')"  # its pixels' digest, not its name
    choose(visit, dots(tmp_path / "a.png"), "#annotate-photo")
    expect(number).to_contain_text("0 people")
    surface.click(position={"x": 50, "y": 50})
    expect(visit.locator("#heads .canvas-hint")).to_contain_text("the last 20 photos")
    newest = [f"csrnet-hub heads 9x9 {i}" for i in range(14, 33)]
    kept = ",".join(["csrnet-hub heads of a.png", *newest])
    visit.wait_for_function(f"{keys} === '{kept}'")
    visit.evaluate(  # full, whatever is removed
        """() => {
            const put = Storage.prototype.setItem;
            Storage.prototype.setItem = function (key, text) {
                if (!key.includes("9x9")) throw new DOMException("full");
                put.call(this, key, text);
            };
        }"""
    )
    surface.click(position={"x": 90, "y": 50})
    expect(visit.locator("#heads .canvas-hint")).to_contain_text("has no room for the heads")
    surface.click(position={"x": 120, "y": 50})
    expect(number).to_contain_text("3 people")
    visit.wait_for_timeout(400)  # a click is kept after 300 ms
    visit.wait_for_function(f"{keys} === '{kept}'")  # those of others, removed in vain, are back
    choose_another(visit, dots(tmp_path / "b.png", people=10))
    expect(number).to_contain_text("0 people")
    choose_another(visit, tmp_path / "a.png")
    expect(number).to_contain_text("3 people")


def choose_another(page: Page, file: Path) -> None:
    page.locator("#annotate-photo").get_by_role("button", name="Remove Image").click()
    page.wait_for_selector("#annotate-photo input[type=file]", state="attached")
    choose(page, file, "#annotate-photo")


def test_a_picture_of_the_page_that_is_pulled_a_little_is_no_new_photo(
    visit: Page, tmp_path: Path
) -> None:
    choose(visit, dots(tmp_path / "a.png"))
    exact = visit.locator("#number .exact")
    count = exact.inner_text()
    fingers = visit.context.new_cdp_session(visit)  # a mouse whose drags are the browser's own
    for what in ("#overlay img", "#photo img"):
        picture = visit.locator(what)
        picture.scroll_into_view_if_needed()
        box = picture.bounding_box()
        assert box
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind, by in (
            ("mouseMoved", 0),
            ("mousePressed", 0),
            ("mouseMoved", 10),
            ("mouseMoved", 30),
            ("mouseMoved", 50),
            ("mouseReleased", 50),
        ):
            at = {"x": x + by, "y": y + by, "button": "left", "buttons": 1, "clickCount": 1}
            fingers.send("Input.dispatchMouseEvent", {"type": kind, **at})
        visit.wait_for_timeout(500)
        expect(exact).to_have_text(count)
    text = base64.b64encode(dots(tmp_path / "b.png", people=10).read_bytes()).decode()
    assert visit.evaluate(GIVEN, ["drop", text, "b.png"])  # one from outside is taken, as before
    expect(exact).not_to_have_text(count)


@pytest.mark.own_tab
def test_heads_whose_file_is_gone_stay_in_the_browser(
    visit: Page, uploads: Path, tmp_path: Path
) -> None:
    visit.on("dialog", lambda dialog: dialog.accept())
    tab(visit, "Annotate")
    choose(visit, dots(tmp_path / "mine.png"), "#annotate-photo")
    visit.locator("#heads canvas").click(position={"x": 50, "y": 50})
    expect(visit.locator("#heads-number")).to_contain_text("1 person")
    keys = "Object.keys(localStorage).filter(key => key.startsWith('csrnet-hub')).length"
    visit.wait_for_function(f"{keys} === 1")
    press(visit, "Save the heads")
    button = visit.get_by_text("CSV", exact=True).locator("visible=true")
    expect(button).to_be_visible()
    for file in named(uploads, "mine.csv"):
        file.unlink()
    button.click()
    expect(visit.locator("#heads .canvas-hint b")).to_contain_text("Press Save the heads again")
    assert visit.evaluate(keys) == 1
    expect(visit.locator("#heads [data-do^=move]:not([hidden])")).to_have_count(0)


@pytest.mark.own_tab
def test_a_tab_in_which_nothing_was_marked_takes_no_heads_back(visit: Page, tmp_path: Path) -> None:
    mine = dots(tmp_path / "mine.png")
    number = visit.locator("#heads-number")
    visit.on("dialog", lambda dialog: dialog.accept())
    tab(visit, "Annotate")
    choose(visit, mine, "#annotate-photo")
    visit.locator("#heads canvas").click(position={"x": 50, "y": 50})
    expect(number).to_contain_text("1 person")
    wait_stored(visit, 1)
    visit.reload()
    tab(visit, "Annotate")
    choose(visit, mine, "#annotate-photo")  # and left alone from here on
    expect(number).to_contain_text("1 person")
    second = visit.context.new_page()
    open_page(second, visit.url)
    tab(second, "Annotate")
    choose(second, mine, "#annotate-photo")
    expect(second.locator("#heads-number")).to_contain_text("1 person")
    second.locator("#heads canvas").click(position={"x": 100, "y": 50})
    expect(second.locator("#heads-number")).to_contain_text("2 people")
    wait_stored(second, 2)
    second.close()
    visit.reload()
    tab(visit, "Annotate")
    choose(visit, mine, "#annotate-photo")
    expect(number).to_contain_text("2 people")


def test_a_key_that_is_held_and_a_double_click_mark_once(visit: Page, tmp_path: Path) -> None:
    tab(visit, "Annotate")
    choose(visit, dots(tmp_path / "a.png"), "#annotate-photo")
    number, surface = visit.locator("#heads-number"), visit.locator("#heads canvas")
    surface.dblclick(position={"x": 50, "y": 50})
    expect(number).to_contain_text("1 person")
    for key in ["ArrowRight"] * 100:  # to the edge of the photo, where a head can be too
        surface.press(key)
    surface.press("Enter")
    expect(number).to_contain_text("2 people")
    surface.focus()
    for _ in range(5):  # as a system repeats a held key
        visit.keyboard.down("Backspace")
    visit.keyboard.up("Backspace")
    expect(number).to_contain_text("1 person")
    visit.keyboard.down("Enter")
    for _ in range(5):
        visit.keyboard.down("Enter")
    visit.keyboard.up("Enter")
    expect(number).to_contain_text("2 people")
    visit.wait_for_timeout(300)
    expect(number).to_contain_text("2 people")


def test_a_zoomed_photo_is_moved_by_buttons(
    visit: Page, counter: PlainCounter, tmp_path: Path
) -> None:
    choose(visit, dots(tmp_path / "a.png"))
    part = visit.locator("#part")
    moves = part.locator("[data-do^=move]:not([hidden])")
    expect(part.locator("canvas")).to_be_visible()
    expect(moves).to_have_count(0)
    for _ in range(3):
        part.get_by_role("button", name="Zoom in").click()
    expect(moves).to_have_count(4)
    for name in ("Move left", "Move up"):
        for _ in range(4):
            part.get_by_role("button", name=name).click()
    drag(visit, part.locator("canvas"), (0.002, 0.002), (0.5, 0.5))
    inside = visit.locator("#inside .exact")
    expect(inside).to_contain_text("inside")
    right, bottom = 160 / 2 / 1.5**3, 112 / 2 / 1.5**3
    corners = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]])
    result = counter.count(tmp_path / "a.png")
    expected = count_inside(result.density, corners, result.height, result.width)
    near = pytest.approx(expected, rel=0.1)
    wait_until(visit, lambda: float(inside.inner_text().split()[0]) == near)


@pytest.mark.parametrize("size", [(1600, 100), (100, 1600)])
def test_a_panorama_has_a_surface_that_can_be_marked(
    visit: Page, tmp_path: Path, size: tuple[int, int]
) -> None:
    tab(visit, "Annotate")
    choose(visit, dots(tmp_path / "long.png", size=size), "#annotate-photo")
    number, surface = visit.locator("#heads-number"), visit.locator("#heads canvas")
    expect(number).to_contain_text("0 people")
    box = surface.bounding_box()
    assert box
    assert min(box["width"], box["height"]) > 200
    visit.wait_for_function(  # the photo is drawn in the middle
        """() => {
            const { width, height } = document.querySelector("#heads canvas");
            const pen = document.querySelector("#heads canvas").getContext("2d");
            return pen.getImageData(width / 2, height / 2, 1, 1).data[3] === 255;
        }"""
    )
    surface.click(position={"x": 4, "y": 4})  # beside the photo
    surface.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    expect(number).to_contain_text("1 person")
    press(visit, "Save the heads")
    heads = read_annotation(saved(visit, "CSV").rename(tmp_path / "heads.csv"), "long.png")
    assert heads == pytest.approx(np.array([[size[0] / 2, size[1] / 2]]), abs=4)


@pytest.mark.own_tab
def test_the_middle_number_of_a_colour_bar_stands_in_its_middle(
    visit: Page, tmp_path: Path
) -> None:
    choose(visit, dots(tmp_path / "a.png"))
    expect(visit.locator("#overlay img")).to_be_visible()
    for width in (320, 768, 1280):
        visit.set_viewport_size({"width": width, "height": 900})
        share = visit.evaluate(
            """() => {
                const bars = [...document.querySelectorAll(".scale")];
                const bar = bars.find(one => one.offsetParent);
                const own = bar.getBoundingClientRect();
                const middle = bar.children[2].getBoundingClientRect();
                return (middle.left + middle.width / 2 - own.left) / own.width;
            }"""
        )
        assert share == pytest.approx(0.5, abs=0.03)


def clip(path: Path) -> Path:
    """Six frames, two a second."""
    film(path, reds((10, 60, 110, 160, 210, 250)), 2)
    return path


@pytest.mark.own_tab
def test_a_clip_gives_a_plot_a_csv_and_a_marked_clip(visit: Page, tmp_path: Path) -> None:
    tab(visit, "Video")
    press(visit, "Count the clip")
    expect(visit.locator("#clip-summary")).to_contain_text(video.NO_CLIP)
    late = hold(visit, "**/run/predict*")  # what the server is told of the clip
    choose(visit, clip(tmp_path / "clip.mp4"), "#clip")
    expect(visit.locator("#clip video")).to_be_attached()
    press(visit, "Count the clip")
    expect(visit.locator("#clip-summary")).to_contain_text("the mean of 3 frames")
    with visit.expect_response("**/run/predict*"):
        late[0].continue_()
    visit.wait_for_timeout(300)
    expect(visit.locator("#clip-summary")).to_contain_text("the mean of 3 frames", timeout=1)
    expect(visit.locator("#timeline img")).to_be_visible()
    expect(visit.locator("#marked video")).to_be_attached()
    assert len(saved(visit, "Counts (CSV)").read_text("utf-8-sig").splitlines()) == 4
    visit.locator("#clip").get_by_label("Clear").click()
    expect(visit.locator("#clip-summary")).to_contain_text(video.WAITING)
    expect(visit.locator("#timeline img")).to_have_count(0)


def test_each_model_has_its_card_and_counts_when_chosen(
    visit: Page, counter: PlainCounter, tmp_path: Path
) -> None:
    tab(visit, "Models")
    expect(visit.locator(".card h2")).to_have_text(["plain", "second"])
    expect(visit.get_by_text("Licence: mit")).to_be_visible()
    expect(visit.get_by_text(cards.NOT_HAD)).to_be_visible()
    visit.get_by_role("button", name="Model card").click()  # the second has none
    expect(visit.get_by_text("The last line.")).to_be_visible()
    expect(visit.get_by_role("heading", name="Ours")).to_be_visible()
    expect(visit.get_by_text("Terms of <the owner> apply.")).to_be_visible()
    visit.wait_for_timeout(500)  # for whatever would be fetched, which the fixture refuses
    tab(visit, "For programs")
    expect(visit.get_by_text("gradio_client").first).to_be_visible()
    tab(visit, "One photo")
    file = dots(tmp_path / "a.png")
    visit.locator("#photo-model input").click()
    visit.get_by_role("option", name="second").click()
    choose(visit, file)
    double = f"{2 * counter.count(file).count:,.2f}"
    expect(visit.locator("#number .exact")).to_contain_text(double)
    expect(visit.locator(".facts")).to_contain_text("model second")


def test_a_phone_in_dark_mode_shows_the_page_readably(
    browser: Browser, url: str, tmp_path: Path
) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = context.new_page()
    open_page(page, url)
    choose(page, dots(tmp_path / "scene.png"))
    expect(page.locator("#number .people")).to_be_in_viewport()
    expect(page.locator("#overlay img")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # no sideways scrolling
    for words in (".people", ".exact", ".facts", ".notice", "#grid td"):
        ink = page.locator(words).first.evaluate("element => getComputedStyle(element).color")
        assert brightness(ink) > 200
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert brightness(paper) < 40
    more = page.get_by_role("button", name="More tabs")
    more.click()
    annotate_tab = page.get_by_role("button", name="Annotate", exact=True)
    annotate_tab.focus()
    page.keyboard.press("Escape")
    expect(annotate_tab).to_be_hidden()
    expect(more).to_be_focused()
    page.keyboard.press("Escape")  # which opens nothing
    expect(annotate_tab).to_be_hidden()
    more.click()  # all tabs can be reached
    page.get_by_role("button", name="Annotate", exact=True).click()
    expect(page.locator("#annotate-photo")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def brightness(colour: str) -> float:
    """The mean of a CSS `rgb(...)`'s three values, 0 to 255."""
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


def test_the_picture_in_docs_is_taken_anew_by_a_command(
    browser: Browser, url: str, tmp_path: Path
) -> None:
    new = screenshots.take(url, tmp_path, browser)
    for picture in (new, Path(app.__file__).parent / "docs" / new.name):
        with Image.open(picture) as opened:
            assert opened.width == screenshots.KEPT
            assert 0.8 < opened.height / opened.width < 1.2  # down to the maps


def kept(uploads: Path) -> set[Path]:
    """The files of visitors, without the page's own examples."""
    # not rglob, which fails where a folder goes meanwhile
    files = {Path(folder) / name for folder, _, names in os.walk(uploads) for name in names}
    return {path for path in files if path.name not in photo.DRAWN}


def named(uploads: Path, name: str) -> set[Path]:
    return {path for path in kept(uploads) if path.name == name}


def wait_for_files(page: Page, uploads: Path, as_wanted: Callable[[set[Path]], bool]) -> set[Path]:
    """The visitors' files once they are as wanted; a moment more, for what is still to come."""
    for _ in range(PATIENCE // 100):
        if as_wanted(kept(uploads)):
            break
        page.wait_for_timeout(100)
    page.wait_for_timeout(500)
    assert as_wanted(kept(uploads)), sorted(path.name for path in kept(uploads))
    return kept(uploads)


def test_a_visitors_files_go_when_the_visitor_leaves_and_nobody_elses(
    browser: Browser, url: str, uploads: Path, tmp_path: Path
) -> None:
    contexts = [browser.new_context() for _ in range(2)]
    leaver, stayer = (context.new_page() for context in contexts)
    open_page(stayer, url)
    wait_for_files(stayer, uploads, lambda files: not files)  # earlier visitors have left
    same = dots(tmp_path / "same.png", 55)  # one upload on the server for both
    choose(stayer, same)
    expect(stayer.locator("#comparison img")).to_have_count(2)
    # the upload, the slider's two pictures, four downloads
    staying = wait_for_files(stayer, uploads, lambda files: len(files) >= 7)
    open_page(leaver, url)
    choose(leaver, same)
    expect(leaver.locator("#comparison img")).to_have_count(2)
    tab(leaver, "Compare")
    table = tmp_path / "unused.csv"
    table.write_text("x,y\n1,2\n")
    with leaver.expect_response("**/run/predict*"):  # the server has heard of it
        choose(leaver, table, "#annotation")
    both = wait_for_files(stayer, uploads, lambda files: len(files) >= len(staying) + 5)
    assert "unused.csv" in {path.name for path in both - staying}
    contexts[0].close()
    wait_for_files(stayer, uploads, lambda files: files == staying)
    assert "same.png" in saved(stayer, "Row (CSV)").read_text("utf-8-sig")
    contexts[1].close()


def test_photos_and_maps_are_removed_when_the_server_stops(
    browser: Browser, counter: PlainCounter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "own"))
    server = app.build_app(counter)
    context = browser.new_context()
    page = context.new_page()
    open_page(page, serve(server))
    choose(page, dots(tmp_path / "mine.png", 70, (152, 104)))
    expect(page.locator("#comparison img")).to_have_count(2)
    assert kept(tmp_path / "own")
    server.close()
    context.close()
    assert not kept(tmp_path / "own")


def test_the_count_shown_is_that_of_the_photo_in_the_box(
    browser: Browser, uploads: Path, tmp_path: Path
) -> None:
    slow = Slow()
    server = app.build_app(slow)
    page = browser.new_page()
    open_page(page, serve(server))
    number = page.locator("#number")
    first, second = (dots(tmp_path / f"{people}.png", people) for people in (5, 90))
    choose(page, first)
    wait_until(page, lambda: len(slow.begun) == 1)
    choose(page, second)
    wait_until(page, lambda: len(server._queue) == 1)
    slow.may.release()
    wait_until(page, lambda: len(slow.begun) == 2)
    page.wait_for_timeout(500)
    expect(number).to_contain_text(shared.COUNTING)  # and not the count of the first
    slow.may.release()
    expect(number).to_contain_text(f"{PlainCounter().count(second).count:,.2f} before rounding")
    choose(page, first)
    wait_until(page, lambda: len(slow.begun) == 3)
    page.get_by_role("button", name="Remove Image").first.click()
    expect(number).to_contain_text(photo.WAITING)
    slow.may.release()
    wait_until(page, lambda: not server._queue.event_ids_to_events)
    page.wait_for_timeout(500)
    expect(number).to_contain_text(photo.WAITING)
    expect(page.locator("#comparison")).to_have_count(0)
    page.close()
    server.close()


def test_a_batch_can_be_stopped_and_what_is_counted_stays(
    browser: Browser, uploads: Path, tmp_path: Path
) -> None:
    slow = Slow(at_once=1)
    server = app.build_app(slow)
    page = browser.new_page()
    open_page(page, serve(server))
    tab(page, "Many photos")
    stop = page.locator("#batch-stop")
    expect(stop).to_be_hidden()
    files = [dots(tmp_path / f"{people}.png", people) for people in (5, 30, 90)]
    page.set_input_files("#batch-photos input[type=file]", files)
    expect(page.locator("#batch-photos").get_by_text("90")).to_be_visible()
    press(page, "Count all")
    expect(page.locator("#batch-summary .progress-text")).to_contain_text("1/3")
    stop.click()
    expect(stop).to_have_text(wanted.STOPPING)  # it is heard while the second photo is counted
    slow.may.release(2)
    expect(page.locator("#batch-summary")).to_contain_text("stopped with 1 photo left")
    expect(page.locator("#batch-gallery img")).to_have_count(2)
    expect(stop).to_be_hidden()
    page.close()
    server.close()


def test_those_who_wait_are_told_so_and_a_full_queue_is_said(
    browser: Browser, uploads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow()
    monkeypatch.setattr(turns, "MAX_WAITING", 1)
    server = app.build_app(slow)
    address = serve(server)
    contexts = [browser.new_context() for _ in range(3)]
    first, second, third = (context.new_page() for context in contexts)
    for page in (first, second, third):
        open_page(page, address)
    for page, words in ((first, "s"), (second, "queue: 1/1")):
        choose(page, dots(tmp_path / "a.png"))
        expect(page.locator("#number")).to_contain_text(shared.COUNTING)
        expect(page.locator("#number .progress-text")).to_contain_text(words)
        wait_until(page, lambda: slow.begun)  # the first has left the queue
    choose(third, dots(tmp_path / "a.png"))
    expect(third.locator("#number [role=alert]")).to_have_text(shared.BUSY)
    slow.may.release(9)
    for page in (first, second):
        expect(page.locator("#number .people")).to_be_visible()
    for context in contexts:
        context.close()
    server.close()


GIVEN = """([kind, text, name]) => {
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    const data = new DataTransfer(), Kind = kind === "paste" ? ClipboardEvent : DragEvent;
    data.items.add(new File([bytes], name, { type: "image/png" }));
    const options = { bubbles: true, cancelable: true, clipboardData: data, dataTransfer: data };
    const event = new Kind(kind, options);
    document.querySelector("h1").dispatchEvent(event);
    return event.defaultPrevented;
}"""


def test_what_is_pasted_or_dropped_beside_the_box_is_counted_in_place_of_what_is_there(
    visit: Page, counter: PlainCounter, tmp_path: Path
) -> None:
    for kind, seed in (("drop", 1), ("paste", 2), ("drop", 3)):
        file = dots(tmp_path / f"{kind}-{seed}.png", size=(120 + 8 * seed, 96))
        text = base64.b64encode(file.read_bytes()).decode()
        assert visit.evaluate(GIVEN, [kind, text, file.name])
        count = f"{counter.count(file).count:,.2f} before rounding"
        expect(visit.locator("#number .exact")).to_have_text(count)
    tab(visit, "Many photos")
    expect(visit.locator("#batch-photos")).to_be_visible()
    visit.wait_for_selector("#batch-photos input[type=file]", state="attached")
    visit.evaluate(GIVEN, ["drop", text, "a.png"])
    expect(visit.locator("#batch-photos").get_by_role("cell", name="a.png")).to_be_visible()
    tab(visit, "Models")
    assert visit.evaluate(GIVEN, ["drop", text, "c.png"])  # the page is not left for the picture


def test_a_folder_that_is_dropped_stands_for_the_pictures_in_it(
    visit: Page, tmp_path: Path
) -> None:
    album, empty, beside = tmp_path / "album", tmp_path / "empty", dots(tmp_path / "beside.png")
    for folder in (album / "day2", empty):
        folder.mkdir(parents=True)
    for name in ("a.png", "day2/b.png"):
        dots(album / name)
    (album / "Thumbs.db").write_bytes(b"no picture")
    tab(visit, "Many photos")
    box = visit.locator("#batch-photos")
    visit.wait_for_selector("#batch-photos input[type=file]", state="attached")
    mouse = visit.context.new_cdp_session(visit)

    def drop(x: float, y: float, *files: Path) -> None:
        held = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            given = {"type": kind, "x": x, "y": y, "data": held}
            mouse.send("Input.dispatchDragEvent", given)

    place = box.bounding_box()
    assert place
    drop(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2, album, beside)
    for name in ("a.png", "b.png", "beside.png"):
        expect(box.get_by_role("cell", name=name, exact=True)).to_be_visible()
    expect(box.get_by_text("Thumbs.db")).to_have_count(0)
    drop(1200, 880, empty)
    expect(box.get_by_role("cell", name="empty", exact=True)).to_be_visible()
    press(visit, "Count all")
    expect(visit.locator("#batch-summary")).to_contain_text("total of 3 of 4 photos")
    expect(visit.locator("#batch-table")).to_contain_text("is empty (0 bytes)")


def test_a_photo_that_comes_while_another_tab_is_open_can_be_marked(
    visit: Page, tmp_path: Path
) -> None:
    tab(visit, "Annotate")
    visit.wait_for_selector("#annotate-photo input[type=file]", state="attached")
    tab(visit, "Models")
    choose(visit, dots(tmp_path / "IMG_8.png", size=(160, 112)), "#annotate-photo")
    expect(visit.locator("#heads .canvas")).not_to_have_attribute("hidden", "")
    tab(visit, "Annotate")
    surface = visit.locator("#heads canvas")
    box = surface.bounding_box()
    assert box
    surface.click(position={"x": 0.25 * box["width"], "y": 0.5 * box["height"]})
    expect(visit.locator("#heads-number")).to_contain_text("1 person")
    press(visit, "Save the heads")
    heads = read_annotation(saved(visit, "CSV").rename(tmp_path / "heads.csv"), "IMG_8.png")
    assert heads == pytest.approx(np.array([[40, 56]]), abs=0.6)


def test_two_fingers_zoom_and_draw_nothing(browser: Browser, url: str, tmp_path: Path) -> None:
    context = browser.new_context(has_touch=True, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    open_page(page, url)
    choose(page, dots(tmp_path / "pinched.png"))
    surface = page.locator("#part canvas")
    surface.scroll_into_view_if_needed()
    box = surface.bounding_box()
    assert box
    fingers = context.new_cdp_session(page)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"], "id": i}
            for i, (x, y) in enumerate(places)
        ]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (0.4, 0.4))
    touch("touchStart", (0.4, 0.4), (0.6, 0.6))
    touch("touchMove", (0.3, 0.3), (0.7, 0.7))
    touch("touchMove", (0.2, 0.2), (0.8, 0.8))
    touch("touchEnd", (0.2, 0.2))  # the other is lifted first
    touch("touchMove", (0.3, 0.3))
    touch("touchMove", (0.5, 0.5))
    touch("touchEnd")
    expect(page.locator("#inside")).to_contain_text(DRAW_ONE)
    for corner in ((0.2, 0.2), (0.8, 0.8)):  # two taps are the corners of a rectangle
        touch("touchStart", corner)
        touch("touchEnd")
    expect(page.locator("#inside")).to_contain_text("in the whole photo")
    context.close()


def test_a_trackpad_zooms_by_little_and_the_browsers_keys_are_its_own(
    visit: Page, tmp_path: Path
) -> None:
    tab(visit, "Annotate")
    choose(visit, dots(tmp_path / "IMG_9.png", size=(160, 112)), "#annotate-photo")
    surface = visit.locator("#heads canvas")
    expect(surface).to_be_visible()
    surface.scroll_into_view_if_needed()
    box = surface.bounding_box()
    assert box
    visit.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    visit.keyboard.down("Control")
    for _ in range(10):
        visit.mouse.wheel(0, -4)
    visit.keyboard.up("Control")
    surface.click(position={"x": 0.75 * box["width"], "y": 0.5 * box["height"]})
    expect(visit.locator("#heads-number")).to_contain_text("1 person")
    pressed = """(canvas, keys) => keys.map(([key, ctrlKey, altKey]) => !canvas.dispatchEvent(
        new KeyboardEvent("keydown", { key, ctrlKey, altKey, bubbles: true, cancelable: true })))"""
    keys = [["+", True, False], ["ArrowLeft", False, True], ["+", False, False]]
    assert surface.evaluate(pressed, keys) == [False, False, True]
    press(visit, "Save the heads")
    heads = read_annotation(saved(visit, "CSV").rename(tmp_path / "heads.csv"), "IMG_9.png")
    assert heads == pytest.approx(np.array([[80 + 40 / np.exp(0.4), 56]]), abs=0.6)


def test_over_the_comparison_the_page_scrolls_and_sections_say_whether_they_are_open(
    visit: Page, tmp_path: Path
) -> None:
    choose(visit, dots(tmp_path / "wide.png"))
    comparison = visit.locator("#comparison img").first
    expect(comparison).to_be_visible()
    comparison.scroll_into_view_if_needed()
    box = comparison.bounding_box()
    assert box
    visit.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    before = visit.evaluate("scrollY")
    visit.mouse.wheel(0, 200)
    visit.wait_for_function("before => scrollY > before + 100", arg=before)
    visit.mouse.wheel(0, -200)
    visit.wait_for_function("before => scrollY < before + 50", arg=before)
    assert "scale(1)" in (comparison.get_attribute("style") or "")
    visit.keyboard.down("Control")
    visit.mouse.wheel(0, -200)
    visit.keyboard.up("Control")
    expect(comparison).not_to_have_attribute("style", re.compile(r"scale\(1\)"))
    section = visit.get_by_role("button", name="How far to trust this number")
    for state in ("true", "false"):
        section.click()
        expect(section).to_have_attribute("aria-expanded", state)


@pytest.mark.parametrize(("size", "motion"), [((160, 112), "no-preference"), ((80, 160), "reduce")])
@pytest.mark.own_tab
def test_the_comparison_is_moved_with_the_keyboard(
    visit: Page, tmp_path: Path, size: tuple[int, int], motion: Literal["no-preference", "reduce"]
) -> None:
    visit.emulate_media(reduced_motion=motion)
    choose(visit, dots(tmp_path / "moved.png", size=size))
    handle = visit.get_by_role("slider", name="Share of the photo")
    expect(handle).to_have_attribute("aria-valuenow", "50")
    map_ = visit.locator("#comparison img").nth(1)
    clipped = [map_.get_attribute("style")]
    for key, value in (("ArrowRight", "55"), ("Home", "0"), ("End", "100"), ("ArrowLeft", "95")):
        handle.press(key)
        expect(handle).to_have_attribute("aria-valuenow", value)
        clipped.append(map_.get_attribute("style"))
    assert len(set(clipped)) == 5
    expect(handle).to_be_focused()
    handle.evaluate("one => { one.style.translate = '-30px'; }")  # as Gradio, once it has a size
    expect(handle).not_to_have_attribute("aria-valuenow", "95")


@pytest.mark.own_tab
def test_a_reload_after_a_lost_connection_asks_nothing_where_the_heads_are_kept(
    visit: Page, tmp_path: Path
) -> None:
    """Gradio reloads by itself; whoever stayed would have a page that answers nothing."""
    asked: list[str] = []
    visit.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    for room in (True, False):
        tab(visit, "Annotate")
        if not room:
            visit.evaluate("() => { localStorage.clear(); Storage.prototype.setItem = null; }")
        choose(visit, dots(tmp_path / f"IMG_{10 + room}.png"), "#annotate-photo")
        visit.locator("#heads canvas").click(position={"x": 50, "y": 50})
        expect(visit.locator("#heads-number")).to_contain_text("1 person")
        with visit.expect_navigation():
            visit.evaluate("setTimeout(() => location.reload(), 0)")
        assert asked == ([] if room else ["beforeunload"])
        expect(visit.get_by_text(photo.WAITING)).to_be_visible()


OWN_DROP = """async ([place, files]) => {
    const data = new DataTransfer();
    for (const [name, type, text] of files) {
        const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
        data.items.add(new File([bytes], name, { type }));
    }
    const options = { bubbles: true, cancelable: true, dataTransfer: data };
    document.querySelector(place).dispatchEvent(new DragEvent("drop", options));
}"""


def drop(page: Page, place: str, *files: Path, kind: str = "") -> None:
    """Let files go over a place, of the type that a browser gives them, "" for none."""
    sent = [[file.name, kind, base64.b64encode(file.read_bytes()).decode()] for file in files]
    page.evaluate(OWN_DROP, [place, sent])


@pytest.mark.own_tab
def test_a_photo_is_taken_after_the_clipboard_was_asked_and_while_another_is_on_its_way(
    visit: Page, counter: PlainCounter, tmp_path: Path
) -> None:
    exact = visit.locator("#number .exact")
    visit.locator("#photo").get_by_label("Paste from clipboard").click()
    file = dots(tmp_path / "first.png")
    text = base64.b64encode(file.read_bytes()).decode()
    assert visit.evaluate(GIVEN, ["paste", text, file.name])
    expect(exact).to_have_text(f"{counter.count(file).count:,.2f} before rounding")
    held = hold(visit)
    slow, last = (dots(tmp_path / f"{people}.png", people) for people in (5, 90))
    for file in (slow, last):
        text = base64.b64encode(file.read_bytes()).decode()
        assert visit.evaluate(GIVEN, ["drop", text, file.name])
        visit.wait_for_timeout(1500)
    press(visit, "Count the people")  # it waits, and finds the count that the photo began
    visit.wait_for_timeout(500)
    expect(visit.get_by_text(shared.NO_PHOTO)).to_have_count(0)
    held[0].continue_()
    expect(exact).to_have_text(f"{counter.count(last).count:,.2f} before rounding")


@pytest.mark.own_tab
def test_a_count_waits_for_all_that_is_on_its_way(visit: Page, tmp_path: Path) -> None:
    table, errors = tmp_path / "heads.csv", visit.locator("#errors")
    table.write_text("x,y\n40,56\n80,56\n")
    first, second = (dots(tmp_path / f"{width}.png", size=(width, 96)) for width in (160, 240))
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    copy(visit, first)
    tab(visit, "Compare")
    choose(visit, table, "#annotation")
    expect(visit.locator("#annotation").get_by_role("link")).to_be_visible()
    for paste in (True, False):  # by Gradio's own button, which shows no upload; and two, dropped
        held = hold(visit)
        if paste:
            visit.locator("#compare-photo").get_by_label("Paste from clipboard").click()
        else:
            drop(visit, "h1", first, kind="image/png")
            drop(visit, "h1", second, kind="image/png")
        wait_until(visit, held.__len__)
        press(visit, "Compare")
        visit.wait_for_timeout(300)
        expect(errors).to_contain_text(compare.WAITING, timeout=1)
        held[0].continue_()
        expect(errors).to_contain_text("annotated 2 people")
        if paste:
            visit.locator("#compare-photo").get_by_label("Remove Image").click()
            expect(errors).to_contain_text(compare.WAITING)
            visit.locator("#compare-photo").get_by_label("Capture from camera").click()
            visit.locator("#compare-photo").get_by_text("Click to Access Webcam").wait_for()
    assert natural_size(visit.locator("#compare-photo img")) == [240, 96]
    assert natural_size(visit.locator("#truth img")) == [240, 96]


@pytest.mark.own_tab
def test_a_double_click_counts_once_and_what_fails_is_said(
    visit: Page, counter: PlainCounter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[Any] = []
    plain = PlainCounter.count

    def count(self: PlainCounter, image: Any, progress: Any = None) -> CountResult:
        counted.append(image)
        return plain(self, image, progress)

    monkeypatch.setattr(PlainCounter, "count", count)
    file, exact = dots(tmp_path / "a.png"), visit.locator("#number .exact")
    choose(visit, file)
    expect(exact).to_be_visible()
    button = visit.get_by_role("button", name="Count the people")
    for _ in range(PATIENCE // 3000):
        button.dblclick()
        visit.wait_for_timeout(3000)
        if len(counted) > 1:  # else the first count had not quite ended: no clicks are taken
            break
    assert len(counted) == 2
    expect(exact).to_be_visible()
    late: list[Route] = []
    ended: list[Request] = []
    visit.on("requestfinished", lambda request: ended.append(request))
    visit.route(
        "**/run/predict*",
        lambda route: route.continue_() if len(late) > 1 else late.append(route),
    )
    for _ in range(2):
        button.click()
    wait_until(visit, lambda: len(late) == 2)
    assert len(counted) == 2
    for request in reversed(late):  # the answers come in one burst
        request.continue_()
    wait_until(visit, lambda: {request.request for request in late} <= set(ended))
    wait_until(visit, lambda: len(counted) > 2)
    expect(exact).to_have_text(f"{plain(counter, file).count:,.2f} before rounding")
    visit.route("**/run/predict*", lambda route: route.fulfill(status=503, body="busy"), times=1)
    press(visit, "Count the people")
    expect(visit.locator("#number [role=alert]")).to_have_text(shared.BUSY)


@pytest.mark.own_tab
def test_a_photo_and_its_annotation_that_come_together_are_both_there(
    visit: Page, tmp_path: Path
) -> None:
    tab(visit, "Annotate")
    number, files = visit.locator("#heads-number"), visit.locator("#heads-files")
    late: list[Route] = []
    for heads in (2, 3):  # the second pair in place of the first, and the photo late
        table = tmp_path / f"{heads}.csv"
        table.write_text("x,y\n" + "".join(f"{20 * (1 + x)},56\n" for x in range(heads)))
        drop(visit, "h1", dots(tmp_path / f"{heads}.png", heads), kind="image/png")
        drop(visit, "h1", table, kind="text/csv")
        if late:
            visit.wait_for_timeout(500)
            late[0].continue_()
        expect(number).to_contain_text(f"{heads} people")
        late = hold(visit)
    press(visit, "Save the heads")
    expect(files).to_be_visible()
    visit.locator("#heads canvas").click(position={"x": 50, "y": 50})
    expect(files).to_be_hidden()  # they lack the last head
    expect(number).to_contain_text("4 people")
    press(visit, "Undo")
    expect(files).to_be_visible()


def test_an_annotation_waits_for_its_photo_however_slow_the_line_is(browser: Browser) -> None:
    """It would be added to the photo before, under which the browser keeps it."""
    page = browser.new_page()
    page.set_content('<div role="tabpanel"><div id="annotate-photo"></div></div>')
    slow = """async (waits) => {
        const tab = document.querySelector("[role=tabpanel]");
        let times = 0;
        tab.onTheWay = 1;
        window.setTimeout = (done) => { if (++times === 9000) tab.onTheWay = 0; done(); };
        await eval(waits)();
        return times;
    }"""
    assert page.evaluate(slow, annotate.WAITS) == 9000  # a quarter of an hour
    page.close()


def test_an_annotation_dropped_on_the_photo_is_the_annotation_and_the_photo_stays(
    visit: Page, tmp_path: Path
) -> None:
    heads = [tmp_path / "one-head.csv", tmp_path / "two-heads.csv"]
    for file, rows in zip(heads, ("40,56\n", "40,56\n80,56\n")):
        file.write_text(f"x,y\n{rows}")
    tab(visit, "Compare")
    visit.wait_for_selector("#compare-photo input[type=file]", state="attached")
    drop(visit, "#compare-photo .upload-container", dots(tmp_path / "a.png"), heads[0])
    for file in heads:  # the second in place of the first
        drop(visit, "#compare-photo .upload-container", file, kind="text/csv")
        expect(visit.locator("#annotation")).to_contain_text(file.stem)
    press(visit, "Compare")
    expect(visit.locator("#errors")).to_contain_text("annotated 2 people")
    drop(visit, "h1", heads[0], kind="text/csv")  # beside the boxes
    expect(visit.locator("#annotation")).to_contain_text("one-head")
    drop(visit, "h1", Path(__file__), kind="text/x-python")
    expect(visit.get_by_text("Invalid file type")).to_be_visible()
    expect(visit.locator("#annotation")).to_contain_text("one-head")
    press(visit, "Compare")
    expect(visit.locator("#errors")).to_contain_text("annotated 1 person")
    tab(visit, "One photo")
    choose(visit, dots(tmp_path / "b.png"))
    count = visit.locator("#number .exact").inner_text()
    drop(visit, "#photo .image-frame", heads[0], kind="text/csv")
    expect(visit.get_by_text("Invalid file type").last).to_be_visible()
    expect(visit.locator("#number .exact")).to_have_text(count)
    expect(visit.locator("#photo img")).to_be_visible()


def test_a_picture_whose_type_the_browser_does_not_know_is_taken(
    visit: Page, counter: PlainCounter, tmp_path: Path
) -> None:
    exact = visit.locator("#number .exact")
    files = [dots(tmp_path / f"{people}.tiff", people) for people in (20, 40, 60)]
    counts = [f"{counter.count(file).count:,.2f} before rounding" for file in files]
    drop(visit, "#photo .upload-container", files[0])
    expect(exact).to_have_text(counts[0])
    drop(visit, "h1", files[1])
    expect(exact).to_have_text(counts[1])
    plain = {"name": "c.tiff", "mimeType": "", "buffer": files[2].read_bytes()}
    visit.set_input_files("#photo input[type=file]", plain)
    expect(exact).to_have_text(counts[2])


@pytest.mark.own_tab
def test_photos_dropped_while_others_are_on_their_way_are_added_to_a_batch(
    visit: Page, tmp_path: Path
) -> None:
    tab(visit, "Many photos")
    files = [dots(tmp_path / f"crowd-of-{people}.png", people) for people in (5, 10, 20)]
    visit.wait_for_selector("#batch-photos input[type=file]", state="attached")
    drop(visit, "h1", files[0], kind="image/png")
    box = visit.locator("#batch-photos")
    expect(box.get_by_role("cell", name=files[0].name)).to_be_visible()
    held = hold(visit)
    for file in files[1:]:
        drop(visit, "h1", file, kind="image/png")
        visit.wait_for_timeout(500)
        expect(box).to_contain_text(files[0].stem, timeout=1)  # it was not emptied meanwhile
    held[0].continue_()
    for file in files:
        expect(box).to_contain_text(file.stem)


def test_a_clip_dropped_beside_its_box_takes_the_place_of_the_one_in_it(
    visit: Page, tmp_path: Path
) -> None:
    tab(visit, "Video")
    visit.wait_for_selector("#clip input[type=file]", state="attached")
    plain = {"name": "0.mp4", "mimeType": "", "buffer": clip(tmp_path / "0.mp4").read_bytes()}
    visit.set_input_files("#clip input[type=file]", plain)
    expect(visit.locator("#clip video")).to_have_attribute("src", re.compile("0.mp4"))
    drop(visit, "#clip video", clip(tmp_path / "1.mp4"))
    expect(visit.locator("#clip video")).to_have_attribute("src", re.compile("1.mp4"))
    for name in ("a.mp4", "b.mp4"):
        drop(visit, "h1", clip(tmp_path / name), kind="video/mp4")
        expect(visit.locator("#clip video")).to_have_attribute("src", re.compile(name))
    drop(visit, "h1", clip(tmp_path / "c.mp4"))  # without a type, as browsers know it
    expect(visit.locator("#clip video")).to_have_attribute("src", re.compile("c.mp4"))
    drop(visit, "h1", dots(tmp_path / "a.png"), kind="image/png")
    visit.wait_for_timeout(500)
    expect(visit.locator("#clip video")).to_have_attribute("src", re.compile("c.mp4"))
