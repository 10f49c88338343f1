"""What is behind the page's tabs, called without a browser or a server."""

from __future__ import annotations

import asyncio
import csv
import importlib
import io
import json
import os
import re
import struct
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from huggingface_hub.errors import EntryNotFoundError
from matplotlib import rc_context
from PIL import Image

pytest.importorskip("gradio", minversion="6")
import gradio as gr
from gradio.mcp import GradioMCPServer
from gradio.route_utils import delete_files_created_by_app
from gradio.state_holder import SessionState, StateHolder
from gradio.utils import get_upload_folder

import demo
from csrnet_hub import load_image
from csrnet_hub.annotations import read_annotation, to_csv
from csrnet_hub.card import RECIPE
from csrnet_hub.datasets import read_dataset
from csrnet_hub.density import density_map
from csrnet_hub.intervals import PredictionInterval
from demo import (
    annotate,
    batch,
    cards,
    clips,
    compare,
    models,
    parts,
    photo,
    plots,
    programs,
    scenes,
    sent,
    shared,
    video,
    visitors,
)
from demo.canvas import read_points
from demo.cards import card_html, error_in_words, read_card, terms_and_text
from demo.counted import Counted, count_html, grid_html, interval_html, notices_html
from demo.files import CLEAN_EVERY, KEEP_FOR, keep_file, sweep, upload_folder
from demo.heads import kept_name, of_another
from demo.models import Models
from demo.sheets import Sheet, Visit

from .page import PlainCounter, Request, encoded, film, noise, reds, uploaded, words


@pytest.fixture(autouse=True)
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


@pytest.fixture
def offered() -> Models:
    return Models([PlainCounter("first"), PlainCounter("second", 2.0)])


def counted(picture: Image.Image) -> Counted:
    pixels = np.asarray(picture)
    return Counted.of("a crowd.jpg", pixels, PlainCounter("m").count(pixels))


# one photo


def test_the_interval_stands_under_the_count():
    result = PlainCounter("m").count(noise(300, 300))
    low, high = result.interval
    html = count_html(result)
    assert f"prediction interval {round(low)}&nbsp;to&nbsp;{round(high)}" in html
    assert "calibrated on, the true number lies within it 90% of the time" in html


def test_a_picture_unlike_the_photos_of_the_interval_shows_none(offered):
    offered.find().max_pixels = None
    large = encoded(noise(300, 300))
    shown = photo._show(offered, uploaded("a.png", large), None, 0.5, False, 3, 3)
    assert "prediction interval" in shown[2]
    small = encoded(noise(40, 40))
    shown = photo._show(offered, uploaded("b.png", small), None, 0.5, False, 3, 3)
    assert "prediction interval" not in shown[2]
    assert 'role="note"' in shown[2]


def test_nobody_is_never_less_than_nobody_in_the_grid():
    result = PlainCounter("m").count(noise())
    object.__setattr__(result, "density", np.full_like(result.density, -1e-3))
    assert "-0" not in grid_html(result, 3, 3)


def test_a_model_without_intervals_shows_none():
    result = PlainCounter("m").count(noise(300, 300))
    assert shared.row("a", result)["low"] is not None
    assert shared.row("a", replace(result, notices=("It is small.",)))["low"] is None
    object.__setattr__(result, "interval", None)
    assert interval_html(result) == ""
    assert shared.row("a", result)["low"] is None


def test_a_session_keeps_little_of_a_large_photo():
    pixels = np.asarray(noise(300, 200)).repeat(10, 0).repeat(10, 1)
    counter = PlainCounter("m")
    counter.max_pixels = None
    kept = Counted.of("large.jpg", pixels, counter.count(pixels))
    assert max(kept.picture().size) == shared.SHOWN
    assert len(kept.photo) + kept.result.density.nbytes < 1_500_000


def test_the_two_sides_of_the_slider_have_one_size():
    for size in ((121, 83), (8, 500), (1500, 17)):
        left, right = counted(noise(*size)).pair()
        assert left.size == right.size


def test_opacity_and_points_change_the_overlay():
    kept = counted(noise())
    clear, half, full = (np.asarray(kept.overlay(a, False), np.int64) for a in (0.0, 0.5, 1.0))
    assert np.array_equal(clear, np.asarray(kept.picture()))
    assert np.abs(full - clear).sum() > np.abs(half - clear).sum() > 0
    assert not np.array_equal(np.asarray(kept.overlay(1.0, True)), full)


def test_the_grids_table_adds_up_to_the_count():
    result = PlainCounter("m").count(noise())
    table = grid_html(result, 3, 3)
    numbers = [float(value) for value in re.findall(r"<td[^>]*>([\d.]+)</td>", table)]
    fields = [numbers[i * 4 + j] for i in range(3) for j in range(3)]
    assert sum(fields) == pytest.approx(result.count, abs=0.5)  # nine roundings
    assert f"<th>{result.count:,.1f}</th>" in table
    assert "<td" in grid_html(result, None, 999)  # whatever a program sends


def test_the_downloads_hold_what_they_are_called():
    kept = counted(noise(300, 300))
    density = np.load(kept.map_file())
    assert density.sum(dtype=np.float64) == pytest.approx(kept.result.count)
    (line,) = csv.DictReader(io.StringIO(Path(kept.csv_file()).read_text("utf-8-sig")))
    assert float(line["count"]) == pytest.approx(kept.result.count)
    assert float(line["low"]) < float(line["count"]) < float(line["high"])
    assert json.loads(Path(kept.json_file()).read_text("utf-8"))["width"] == 300
    with Image.open(kept.overlay_file(0.5, True)) as picture:
        assert picture.format == "PNG"
        assert picture.size == (300, 300)
    assert Path(kept.map_file()).name == "a crowd-density.npy"


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "", "a/b\\c", "x" * 500, "\x00", "."])
def test_a_files_name_never_leads_out_of_the_folder(name, uploads):
    path = Path(keep_file(name, b"x"))
    assert path.is_relative_to(uploads)
    assert path.read_bytes() == b"x"


def test_no_file_is_written_to_a_disk_that_is_nearly_full(uploads, monkeypatch):
    monkeypatch.setattr("demo.files.has_room", lambda: False)
    with pytest.raises(gr.Error, match="disk is full"):
        keep_file("a.csv", b"x")
    assert not list(uploads.rglob("a.csv"))


def test_an_upload_that_takes_hours_keeps_what_has_arrived(uploads, monkeypatch):
    files = [uploads / f"tmp{name}" for name in "ab"]
    for file in files:
        file.write_bytes(b"x")
    later = time.time() + KEEP_FOR + 1
    os.utime(files[1], (later, later))
    monkeypatch.setattr("demo.files.time", SimpleNamespace(time=lambda: later))
    sweep()
    assert all(file.exists() for file in files)


def test_of_a_session_with_an_endless_name_nothing_is_kept(monkeypatch):
    async def other(self: Any, *, asked: Any, session_hash: str) -> None: ...

    monkeypatch.setattr(gr.Blocks, "process_api", other)
    page = visitors.Page()
    for session, kept in (("x" * 65, []), ("x" * 64, ["x" * 64])):
        asyncio.run(page.process_api(asked=None, session_hash=session))
        assert list(page._visitors) == kept


def test_two_visitors_files_of_one_name_are_two_files():
    first, second = (keep_file("a.csv", content) for content in (b"1", b"2"))
    assert (Path(first).read_bytes(), Path(second).read_bytes()) == (b"1", b"2")


def test_a_spreadsheet_runs_no_photos_name_as_a_formula():
    table = shared.to_csv([{"image": "=HYPERLINK(1)", "count": -1.5}], ["image", "count"])
    assert table.decode("utf-8-sig").splitlines()[1] == "'=HYPERLINK(1),-1.5"


def test_only_names_that_a_spreadsheet_might_split_are_quoted():
    names = ["a b.jpg", "a;=1+1;.jpg", "a\t=1+1.jpg", "b.jpg"]
    table = shared.to_csv([{"image": name, "count": 1.5} for name in names], ["image", "count"])
    assert table.decode("utf-8-sig").splitlines() == [
        "image,count",
        "a b.jpg,1.5",
        '"a;=1+1;.jpg",1.5',
        '"a\t=1+1.jpg",1.5',
        "b.jpg,1.5",
    ]


def test_a_drawn_scene_is_called_that(offered):
    offered.find().max_pixels = None
    for name, people in photo.DRAWN.items():
        shown = photo._show(offered, uploaded(name, encoded(noise())), None, 0.5, False, 3, 3)
        assert f"This scene is drawn, with {people} people in it" in shown[2]
    own = photo._show(offered, uploaded("a.png", encoded(noise())), None, 0.5, False, 3, 3)
    assert "drawn" not in own[2]


def test_the_examples_are_drawn_by_the_page_and_not_counted_before_somebody_asks(offered, uploads):
    offered.find().count = pytest.fail
    with gr.Blocks():
        photo.layout(offered)
    files = {path.name: path for path in uploads.rglob("drawn-scene-*.jpg")}
    assert set(files) == set(photo.DRAWN)
    weight = sum(path.stat().st_size for path in files.values())
    assert weight < 700_000  # every visitor fetches them with the page


def test_notices_are_shown_beside_the_count():
    assert 'role="note"' in notices_html(counted(noise(40, 40)).result.notices)


def test_the_page_shows_a_sentence_in_the_counts_place(offered):
    shown = photo._show(offered, None, None, 0.5, False, 3, 3)
    assert shared.NO_PHOTO in shown[2]
    assert photo.redraw(shown[1], 0.5, False) == (gr.skip(), gr.skip())  # while another is counted
    assert photo.redraw_grid(shown[1], 3, 3) == gr.skip()
    assert parts.show_part(shown[1], "[[1,1],[9,9],[1,9]]") == shared.message_html(
        parts.DRAW_ONE, "waiting"
    )
    shown = photo._show(offered, uploaded("a.png", encoded(noise())), "third", 0.5, False, 3, 3)
    assert "no such model" in shown[2]


def test_the_answer_has_a_place_for_each_component(offered):
    shown = photo._show(offered, uploaded("a.png", encoded(noise())), None, 0.5, True, 3, 3)
    assert len(shown) == len(photo.nothing(""))
    assert isinstance(shown[1], Counted)
    path, again = photo.redraw(shown[1], 0.1, False)
    assert path == again != shown[4]


def test_a_box_holds_no_broken_picture_and_keeps_one_that_was_counted(offered):
    broken = photo._show(offered, uploaded("a.png", b"x"), None, 0.5, True, 3, 3)
    assert broken[0] is None
    whole = photo._show(offered, uploaded("a.png", encoded(noise())), None, 0.5, True, 3, 3)
    assert "value" not in whole[0]


def test_a_visitor_who_moves_the_opacity_about_has_no_more_overlays_than_are_in_use(
    offered, uploads
):
    mine, others = (counted(noise(seed=i)) for i in range(2))
    other = others.overlay_file(0.5, False)
    files = [photo.redraw(mine, opacity / 10, False)[0] for opacity in range(8)]
    # the one before may still be loading in the browser
    assert [Path(file).is_file() for file in files] == [False] * 6 + [True] * 2
    assert Path(other).is_file()


def test_after_a_lost_connection_the_page_asks_for_the_photo_again():
    for call in (lambda: photo.redraw(None, 0.5, False), lambda: photo.redraw_grid(None, 3, 4)):
        with pytest.raises(gr.Error) as caught:
            call()
        assert shared.EXPIRED in str(caught.value)
    assert shared.EXPIRED in parts.show_part(None, [[0, 0], [9, 0], [9, 9]])


def test_looks_that_a_program_sends_are_no_fault_of_the_server(offered):
    kept = counted(noise())
    for opacity in (None, "x", -4, 99):
        assert Path(photo.redraw(kept, opacity, None)[0]).is_file()


@pytest.mark.parametrize("number", ["abc", [1], {"a": 1}, float("inf"), float("nan")])
def test_numbers_that_are_none_get_a_sentence(number, offered):
    kept = counted(noise())
    with pytest.raises(gr.Error, match="whole numbers from 1 to 12"):
        photo.redraw_grid(kept, number, 3)
    with pytest.raises(gr.Error, match="opacity is a number from 0 to 1"):
        photo.redraw(kept, float("nan"), False)
    upload = uploaded("a.png", encoded(noise()))
    for looks in ((float("nan"), 3), (0.5, number)):
        shown = photo._show(offered, upload, None, looks[0], False, 3, looks[1])
        assert "number" in shown[2]
        assert shared.UNEXPECTED not in shown[2]


# a part


def test_the_part_inside_and_the_part_outside_add_up():
    kept = counted(noise())
    text = words(parts.part_html(kept, [[0, 0], [60, 0], [60, 80], [0, 80]]))
    inside, outside, whole = map(float, re.findall(r"(\d+\.\d\d) (?:inside|outside|in the)", text))
    assert inside + outside == pytest.approx(whole, abs=0.011)
    assert whole == pytest.approx(kept.result.count, abs=0.006)
    assert 0.3 < inside / whole < 0.7


@pytest.mark.parametrize("outline", [None, [], [[1, 1]], [[1, 1], [5, 5]]])
def test_without_a_region_the_page_asks_for_one(outline):
    assert parts.DRAW_ONE in parts.show_part(counted(noise()), outline)
    assert parts.DRAW_ONE in parts.show_part(None, [])


@pytest.mark.parametrize(
    "value",
    [
        "x",
        [[1, 2], [3]],
        [1, 2],
        [[1, None]],
        {"a": 1},
        [["a", "b"]],
        [[10**400, 1]],
        "[[1,",
        pytest.param("[" * 10**5, id="deep"),
        "[[1, NaN]]",
        '"x"',
    ],
)
def test_what_is_no_list_of_points_gets_a_sentence(value):
    with pytest.raises(shared.VisitorError, match="points"):
        read_points(value)
    assert "points" in parts.show_part(counted(noise()), value)


def test_the_surface_sends_its_points_as_text():
    assert read_points("[[1,2.5],[3,4]]").tolist() == [[1, 2.5], [3, 4]]
    assert read_points("[]").shape == read_points("").shape == read_points(None).shape == (0, 2)


def test_there_is_a_limit_to_points():
    with pytest.raises(shared.VisitorError, match="50,001"):
        read_points([[0, 0]] * 50_001)


def test_a_region_has_fewer_corners_than_there_may_be_heads_and_none_far_away():
    kept = counted(noise())
    assert "inside" in parts.show_part(kept, [[0, 0], [60, 0], [60, 80]] * 3333)
    assert "10,001 points; the limit is 10,000" in parts.show_part(kept, [[0, 0]] * 10_001)
    assert "far outside" in parts.show_part(kept, [[0, 0], [1e308, 3], [5, -1e308]])


def test_a_region_of_a_very_tall_photo_has_fewer_corners(monkeypatch):
    kept = counted(noise())
    monkeypatch.setattr(parts, "MOST_CROSSED", 4 * kept.result.height)
    assert "inside" in parts.show_part(kept, [[0, 0], [60, 0], [60, 80], [0, 80]])
    assert "too many" in parts.show_part(kept, [[0, 0], [60, 0], [60, 80], [0, 80], [3, 3]])


def test_an_outline_with_too_many_corners_is_refused_before_the_count(offered, monkeypatch):
    monkeypatch.setattr(parts, "MOST_CROSSED", 4 * 80)
    upload = uploaded("a.png", encoded(noise(120, 80)))
    square = [[0, 0], [60, 0], [60, 80], [0, 80]]
    assert programs.count_part(offered, upload, square)["inside"] > 0
    monkeypatch.setattr(offered, "count", pytest.fail)
    with pytest.raises(gr.Error, match="5 points are too many for a photo 80 pixels high"):
        programs.count_part(offered, upload, [*square, [3, 3]])


# many photos


def test_the_table_of_a_batch_can_be_had_before_its_end(offered, monkeypatch):
    clock = iter(range(0, 1000, 2))  # each photo takes two seconds
    monkeypatch.setattr(batch, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    files = [uploaded(f"{i}.png", encoded(noise(seed=i))) for i in range(3)]
    seen, labels = [], []
    for _, _, _, _, file in batch.run(offered, files, None):
        text = Path(file["value"]).read_text("utf-8-sig")
        seen.append([line["image"] for line in csv.DictReader(io.StringIO(text))])
        labels.append(file["label"])
    assert seen == [["0.png"], ["0.png", "1.png"], ["0.png", "1.png", "2.png"]]
    assert labels[1:] == ["Table so far (CSV), 2 of 3", "Table (CSV)"]


def test_a_table_that_somebody_downloads_ends_no_batch(offered, monkeypatch):
    """On Windows a file that is open cannot be removed."""

    def held(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "The process cannot access the file")

    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(batch, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(Path, "unlink", held)
    files = [uploaded(f"{i}.png", encoded(noise(seed=i))) for i in range(3)]
    *_, (_, _, _, _, file) = batch.run(offered, files, None)
    lines = list(csv.DictReader(io.StringIO(Path(file["value"]).read_text("utf-8-sig"))))
    assert [line["image"] for line in lines] == ["0.png", "1.png", "2.png"]


def enough_after(calls: int) -> Any:
    """Progress that a visitor stops after so many calls."""
    left = iter(range(calls))

    def tell(*share: Any, **words: Any) -> None:
        if next(left, None) is None:
            raise shared.EnoughError

    return tell


def test_a_batch_that_is_stopped_shows_what_is_counted(offered):
    files = [uploaded(f"{i}.png", encoded(noise(seed=i))) for i in range(4)]
    *_, (summary, table, gallery, _, file) = batch.run(offered, files, None, enough_after(2))
    assert [row[0] for row in table["value"]] == ["0.png", "1.png"]
    assert "total of 2 of 4 photos" in summary
    assert "stopped with 2 photos left" in summary
    assert len(gallery["value"]) == 2
    assert file["label"] == "Table (CSV)"
    assert len(Path(file["value"]).read_text("utf-8-sig").splitlines()) == 3
    *_, shown = batch.run(offered, files, None, enough_after(0))
    assert batch.STOPPED in shown[0]
    assert not shown[1]["visible"]


def test_every_photo_has_its_row_a_bad_one_with_its_reason(offered):
    files = [uploaded(f"{i}.png", encoded(noise(seed=i))) for i in range(3)]
    files.insert(1, uploaded("bad.jpg", b"no photo"))
    *_, (summary, table, gallery, plot, file) = batch.run(offered, files, "second")
    rows = table["value"]
    assert [row[0] for row in rows] == ["0.png", "bad.jpg", "1.png", "2.png"]
    assert "text file" in rows[1][-1]
    assert rows[1][1] is None
    counts = [PlainCounter("m", 2.0).count(noise(seed=i)).count for i in range(3)]
    assert [row[1] for row in rows if row[1]] == [round(count, 1) for count in counts]
    assert shared.headline(sum(counts)) in words(summary)
    assert "3 of 4 photos" in summary
    assert "1 could not be counted" in summary
    assert len(gallery["value"]) == 3
    assert "interval" not in table["label"]  # so small: no range is known for any of them
    assert Path(plot["value"]).is_file()
    lines = list(csv.DictReader(io.StringIO(Path(file["value"]).read_text("utf-8-sig"))))
    assert [line["image"] for line in lines] == [row[0] for row in rows]
    assert "text file" in lines[1]["error"]
    assert all("small" in line["notices"] for line in (lines[0], *lines[2:]))


def test_photos_like_those_of_the_test_have_their_interval_in_the_table(offered):
    offered.find().max_pixels = None
    files = [uploaded(f"{side}.png", encoded(noise(side, side))) for side in (300, 40)]
    *_, (summary, table, _, _, file) = batch.run(offered, files, None)
    low, high = PlainCounter("m").count(noise(300, 300)).interval
    assert [row[2:4] for row in table["value"]] == [[round(low), round(high)], [None, None]]
    assert "low to high: each photo's 90% prediction interval" in table["label"]
    lines = list(csv.DictReader(io.StringIO(Path(file["value"]).read_text("utf-8-sig"))))
    assert [bool(line["low"]) for line in lines] == [True, False]
    assert "interval" not in summary  # the ranges of photos do not add up to that of their total


def test_a_name_that_is_no_unicode_keeps_no_batch_from_its_table(offered):
    photo = uploaded("a.png", encoded(noise())) | {"orig_name": "a\ud800.png"}
    *_, (_, table, _, _, file) = batch.run(offered, [photo], None)
    assert table["value"][0][0] == "a?.png"
    assert "a?.png" in Path(file["value"]).read_text("utf-8-sig")


def test_what_fails_when_all_is_counted_is_a_sentence(offered, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(batch, "shown", full)
    *_, answer = batch.run(offered, [uploaded("a.png", encoded(noise()))], None)
    assert shared.UNEXPECTED in answer[0]


def test_a_batch_of_bad_files_says_so_and_still_lists_them(offered):
    files = [uploaded(f"{i}.jpg", b"x") for i in range(2)]
    *_, shown = batch.run(offered, files, None)
    assert "None of 2 photos could be counted" in shown[0]
    assert len(shown[1]["value"]) == 2
    said = batch.summary_html([batch.Line("a.jpg", remark="Why.")], 3, stopped=True)
    assert "The first photo could not be counted" in said


def test_a_batch_of_one_photo_shows_what_one_photo_needs(offered):
    offered.find().max_pixels = None
    *_, shown = batch.run(offered, [uploaded("bad.jpg", b"no photo")], None)
    assert "text file" in shown[0]
    assert len(shown[1]["value"]) == 1
    *_, shown = batch.run(offered, [uploaded("a.png", encoded(noise(300, 300)))], None)
    assert shown[0] == count_html(PlainCounter("m").count(noise(300, 300)))
    *_, shown = batch.run(offered, [uploaded("a.png", encoded(noise()))], None)
    assert 'role="note">The picture is small' in shown[0]


def test_of_one_count_no_mean_is_told(offered):
    files = [uploaded("a.png", encoded(noise())), uploaded("bad.jpg", b"x")]
    *_, shown = batch.run(offered, files, None)
    assert "total of 1 of 2 photos · 1 could not be counted" in shown[0]


@pytest.mark.parametrize("files", [None, [], "x", {}])
def test_an_empty_batch_gets_a_sentence(files, offered):
    (shown,) = batch.run(offered, files, None)
    assert batch.NO_PHOTOS in shown[0]


def test_a_batch_has_a_limit(offered):
    (shown,) = batch.run(offered, [{}] * (batch.MOST + 1), None)
    assert f"the limit is {batch.MOST}" in shown[0]


# compare


def test_no_error_has_no_sign():
    numbers = (-0.04, 0.04, 0.0, -0.06, 1234.5)
    assert [compare.signed(heads) for heads in numbers] == ["0.0", "0.0", "0.0", "-0.1", "+1,234.5"]


def test_a_comparison_has_both_counts_the_error_and_where_it_is(offered, tmp_path):
    heads = np.array([[10, 10], [50, 60], [100, 40], [500, 500]], np.float32)
    upload = uploaded("a.png", encoded(noise()))
    shown = compare.run(offered, upload, uploaded("a.csv", to_csv(heads, "a.png")), None)
    assert len(shown) == len(compare.nothing(""))
    count = PlainCounter("m").count(noise()).count
    assert f"{count - 3:,.1f} too many" in words(shown[0])
    assert "annotated 3 people" in shown[0]
    assert "1 point lies outside the photo and is not counted." in shown[0]
    pictures = [load_image(path) for path in (shown[2], shown[3], shown[5])]
    assert {picture.shape for picture in pictures} == {(80, 120, 3)}
    errors = [float(value) for value in re.findall(r">([+-]?[\d.]+)</td>", shown[7])]
    assert len(errors) == 16
    assert sum(errors) == pytest.approx(count - 3, abs=1)


def test_a_perfect_prediction_has_no_error_anywhere():
    heads = np.random.default_rng(2).uniform((9, 9), (110, 70), (30, 2)).astype(np.float32)
    result = PlainCounter("m").count(noise())
    truth = compare.compare(result, heads).truth
    object.__setattr__(result, "density", truth.astype(np.float32))
    object.__setattr__(result, "count", 30.0)
    comparison = compare.compare(result, heads)
    assert comparison.error == 0
    picture, _ = compare.difference(comparison, (120, 80), (120, 80))
    assert np.ptp(np.asarray(picture).astype(int), axis=(0, 1)).max() <= 1


def test_the_annotation_of_a_photo_that_is_counted_smaller_has_kernels_as_much_wider():
    result = counted(noise(320, 240)).result
    heads = np.asarray([[80, 120], [240, 120]], np.float32)
    tops = [
        compare.compare(replace(result, scale=scale), heads).truth.max()
        for scale in (2.0, 1.0, 0.25)
    ]
    assert tops[0] == tops[1] > 5 * tops[2]


def test_no_error_is_neither_too_many_nor_too_few():
    result = replace(counted(noise()).result, count=1.0)
    comparison = compare.compare(result, np.asarray([[5, 5]], np.float32))
    assert "no error" in words(compare.numbers_html(comparison))


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (None, "no annotation yet"),
        (("a.csv", b"x,y\n" + b"1,2\n" * 2**21), "8.0 MB; the limit is 8 MB"),
        (("a.txt", b"1,2"), ".mat, .csv, .json"),
        (("a.mat", b"rubbish"), "a.mat"),
        (("a.mat", b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF"), "Save it with -v7"),
        (("a.mat", b"\x89HDF\r\n\x1a\n"), "Save it with -v7"),
        (("a.csv", b"x,y\n1,z\n"), "both numbers"),
        (("a.csv", b""), "0 bytes"),
        (("a.csv", b"\n"), "the file is empty"),
        (("a.csv", b"\xef\xbb\xbf"), "the file is empty"),
        (("a.csv", b"5,5\n" * 50_001), "50,001 heads; the limit is 50,000"),
    ],
)
def test_a_bad_annotation_gets_a_sentence_without_a_path(annotation, words, offered, uploads):
    upload = uploaded("a.png", encoded(noise()))
    file = annotation and uploaded(*annotation)
    text, *_, photo_box = compare.run(offered, upload, file, None)
    assert words in text
    assert str(uploads) not in text
    assert photo_box == gr.update()  # the photo is a good one


def test_what_is_no_picture_leaves_the_box_of_a_comparison(offered):
    table = uploaded("a.csv", b"x,y\n5,5\n")
    text, *_, photo_box = compare.run(offered, uploaded("a.png", b"\x89PNG"), table, None)
    assert "problem" in text
    assert photo_box is None


def test_a_comparison_has_the_notices_that_the_photo_alone_has(offered):
    offered.find().max_pixels = None
    table = uploaded("a.csv", b"x,y\n5,5\n")
    for picture, name, word in (
        (noise(40, 40), "a.png", "The picture is small (40 × 40 pixels)"),
        (noise(300, 300), "drawn-scene.png", "This scene is drawn, with 1 people in it"),
    ):
        shown = compare.run(offered, uploaded(name, encoded(picture)), table, None)
        assert f'role="note">{word}' in shown[0]
    shown = compare.run(offered, uploaded("a.png", encoded(noise(300, 300))), table, None)
    assert "note" not in shown[0]


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.csv", "image,x,y\n<b>.jpg,5,5\n", "The annotation names &lt;b&gt;.jpg, but this photo"),
        ("a.csv", "other.jpg;5,5;5\n", "The annotation names other.jpg"),
        ("a.csv", "x,y,image\n5,5,photos/mine.jpg\n", ""),
        ("a.csv", "mine.jpg,5,5\nother.jpg,7,7\n", ""),
        ("a.csv", "MINE.JPG,5,5\nother.jpg,7,7\n", ""),  # as Windows has it
        ("a.csv", "x,y\n5,5\n", ""),
        ("a.csv", "mi\u2028ne.jpg,5,5\n", "The annotation names mi"),
        ("a.json", '{"image": "other.png", "heads": []}', "The annotation names other.png"),
        ("a.json", '{"width": 600, "height": 600, "heads": []}', "of 600 × 600 pixels; this one"),
        ("a.json", '{"image": "mine.jpg", "width": 300, "height": 300, "heads": []}', ""),
        ("a.json", '{"image": 7, "width": "wide", "heads": []}', ""),
        ("a.json", "[[5, 5]]", ""),
    ],
)
def test_an_annotation_of_another_photo_is_said_to_be_that(name, content, word, offered):
    offered.find().max_pixels = None
    photo_of = uploaded("mine.png", encoded(noise(300, 300)))
    text = compare.run(offered, photo_of, uploaded(name, content.encode()), None)[0]
    assert "annotated" in text
    assert (word in text) if word else ("note" not in text)


def test_the_drawn_scene_comes_with_the_heads_that_are_in_it():
    picture, table = compare.draw_one()
    height, width = load_image(picture).shape[:2]
    heads = read_annotation(table)
    assert len(heads) == 400
    assert ((heads >= 0) & (heads < (width, height))).all()


# annotate


def sheet_of(name: str) -> Any:
    """What the browser keeps of a photo of that name that was chosen."""
    return json.loads(json.dumps(annotate.start(Visit(), 1, uploaded(name, encoded(noise())))[0]))


def test_marked_heads_grow_a_map_that_sums_to_their_number():
    sheet = sheet_of("me.png")
    for heads in ([], [[5, 5]], [[5, 5], [60, 40], [119, 79]]):
        number, picture, scale, _ = annotate.grown(Visit(), sheet, heads)
        assert shared.people(len(heads)) in words(number)
        assert f"sums to {len(heads):.2f}" in number
        assert load_image(picture["value"]).shape == (80, 120, 3)
        assert "heads in 8 × 8 pixels" in scale


def test_a_visitor_who_clicks_on_has_no_more_maps_than_are_in_use():
    mine, other = Visit(), Visit()
    sheet = sheet_of("me.png")
    maps = [annotate.grown(who, sheet, [[5, 5]])[1]["value"] for who in (other, *[mine] * 5)]
    # the one before may still be loading in the browser
    assert [Path(file).is_file() for file in maps] == [True] + [False] * 3 + [True] * 2


@pytest.mark.parametrize("index", [1, 2, 3])
def test_saved_heads_are_read_back_to_the_same_points(index):
    sheet = sheet_of("IMG_1.png")
    heads = [[5.25, 5.5], [60.17, 40.33], [119.99, 79.99]]
    _, _, *files = annotate.save(Visit(), sheet, heads)
    assert [Path(file).name for file in files[1:]] == ["IMG_1.csv", "IMG_1.json", "GT_IMG_1.mat"]
    assert np.array_equal(read_annotation(files[index]), np.asarray(heads, np.float32))


def test_going_on_with_an_annotation_keeps_the_heads_already_marked():
    sheet = sheet_of("a.png")
    earlier = uploaded("a.csv", b"x,y\n1,2\n3,4\n")
    surface, box = annotate.go_on(sheet, earlier, [[50, 50]])
    assert box is None  # for the next photo's
    assert "value" not in surface  # heads marked in the meantime stay
    assert json.loads(surface["added"]["heads"]) == [[1, 2], [3, 4]]
    assert surface["added"]["digest"] == sheet["digest"]


def test_heads_that_are_marked_already_are_not_added_again(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(gr, "Info", lambda text: said.append(text))
    sheet, marked = sheet_of("a.png"), [[50.37, 60.01], [7, 8], [9.99, 3]]
    csv_file, *_ = annotate.save(Visit(), sheet, marked)[3:]
    content = Path(csv_file).read_bytes() + b"a.png,1,2\n"
    for heads, words_said in ((marked, "3 heads in the file were"), (marked[:1], "1 head in the")):
        surface, _ = annotate.go_on(sheet, uploaded("a.csv", content), heads)
        assert len(json.loads(surface["added"]["heads"])) == 4 - len(heads)
        assert words_said in said.pop()


def test_heads_of_another_photo_are_not_taken_without_a_word(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text: said.append(text))
    sheet = sheet_of("a.png")
    annotate.go_on(sheet, uploaded("a.csv", b"image,x,y\na.png,1,2\n"), "[]")
    assert said == []
    other = {"image": "<b>.jpg", "width": 600, "height": 400, "heads": [[5, 5]]}
    annotate.go_on(sheet, uploaded("b.json", json.dumps(other).encode()), "[]")
    assert "The annotation names &lt;b&gt;.jpg" in said[0]
    assert "600" in said[1]
    annotate.go_on(sheet, uploaded("c.csv", b"x,y\n1,2\n130,2\n"), "[]")
    assert said[2:] == ["1 head lies outside the photo and was left out."]


def test_a_phones_photo_is_annotated_in_detail():
    _, shown = annotate.open_photo(uploaded("a.png", encoded(noise(5000, 300))))
    assert Image.open(io.BytesIO(shown)).size == (4096, 246)


def test_two_photos_of_one_name_and_size_are_told_apart():
    first, again, other = (
        annotate.open_photo(uploaded("image.png", encoded(noise(seed=seed))))[0]
        for seed in (0, 0, 1)
    )
    assert first.digest == again.digest
    assert first.digest != other.digest


def test_an_annotation_with_which_there_would_be_too_many_heads_is_refused():
    table = b"x,y\n" + b"1,2\n" * 50_000
    sheet, earlier = sheet_of("a.png"), uploaded("a.csv", table)
    surface, _ = annotate.go_on(sheet, earlier, [])
    assert len(json.loads(surface["added"]["heads"])) == 50_000
    with pytest.raises(gr.Error, match="50,001 points"):
        annotate.go_on(sheet, earlier, [[50, 50]])
    with pytest.raises(gr.Error, match="50,001 heads"):
        annotate.go_on(sheet, uploaded("b.csv", table + b"1,2\n"), [])
    with pytest.raises(gr.Error, match="0 bytes"):
        annotate.go_on(sheet, uploaded("c.csv", b""), [])


@pytest.mark.parametrize(
    "name",
    ["Fair & crowd (1).jpg", "50% off #1 [a]; it's.jpg", "広場.jpg", "x" * 130 + ".jpg", "a.b.png"],
    ids=["ampersand", "marks", "Japanese", "long", "two dots"],
)
def test_the_mat_of_a_photo_is_found_beside_it_for_training(name, tmp_path, monkeypatch):
    monkeypatch.setattr(gr, "Warning", pytest.fail)
    *_, mat = annotate.save(Visit(), sheet_of(name), [[5, 6], [7, 8]])
    for folder, file in (("images", name), ("ground-truth", Path(mat).name)):
        (tmp_path / "train_data" / folder).mkdir(parents=True)
        content = encoded(noise()) if folder == "images" else Path(mat).read_bytes()
        (tmp_path / "train_data" / folder / file).write_bytes(content)
    (sample,) = read_dataset(tmp_path, "shanghaitech", "train")
    assert sample.heads.tolist() == [[5, 6], [7, 8]]


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ('"a" * b?.jpg', "_a_ _ b_.jpg"),
        ("é" * 120 + ".jpg", "é" * 66 + ".jpg"),
        ("=HYPERLINK(A1).jpg", "_=HYPERLINK(A1).jpg"),
        ("-1+1.jpg", "_-1+1.jpg"),
    ],
    ids=["forbidden", "too long", "formula", "sum"],
)
def test_a_photo_whose_name_cannot_be_kept_has_to_be_renamed_and_the_page_says_to_what(
    name, new, monkeypatch, tmp_path
):
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda text, **_: said.append(text))
    _, _, _, *files = annotate.save(Visit(), sheet_of(name), [[5, 6]])
    assert f"rename the photo to {new} so" in said[0]
    assert Path(files[-1]).name == f"GT_{Path(new).stem}.mat"
    for file in map(Path, files):  # training finds the renamed photo by each
        folder = tmp_path / file.suffix
        folder.mkdir()
        (folder / new).write_bytes(encoded(noise()))
        (folder / file.name).write_bytes(file.read_bytes())
        (sample,) = read_dataset(folder)
        assert sample.path.name == new
        assert sample.heads.tolist() == [[5, 6]]


def test_a_sheets_name_is_as_short_as_that_of_an_upload():
    sent = {**sheet_of("a.png"), "name": "../b/" + "x" * 10_000}  # no page sends this
    sheet = Sheet.sent(sent)
    assert sheet is not None
    assert sheet.name == "x" * 255


def test_heads_hang_on_nothing_that_the_server_keeps(offered):
    """It is lost with the connection, and for one visitor in many, while somebody clicks."""
    with gr.Blocks() as page:
        annotate.layout(offered)
    (kept,) = (block.value for block in page.blocks.values() if isinstance(block, gr.State))
    assert kept == Visit()
    sheet = sheet_of("a.png")
    assert "1 person" in words(annotate.grown(kept, sheet, [[5, 5]])[0])
    assert Path(annotate.save(kept, sheet, [[5, 5]])[-1]).is_file()


def test_an_answer_for_a_photo_that_was_replaced_or_removed_is_left_out():
    visit, upload = Visit(), uploaded("a.png", encoded(noise()))
    sheet = annotate.start(visit, 2, upload)[0]
    assert annotate.start(visit, 1, upload) == [gr.skip()] * 7  # it came earlier, and is heard late
    assert annotate.clear(visit, 1) == [gr.skip()] * 6
    assert annotate.grown(visit, sheet, [[5, 5]]) != [gr.skip()] * 4
    time.sleep(0.01)  # sheets are told apart by when they were opened
    other = annotate.start(visit, 3, upload)[0]
    assert annotate.grown(visit, sheet, [[5, 5]]) == [gr.skip()] * 4
    assert annotate.save(visit, sheet, [[5, 5]]) == [gr.skip()] * 6
    assert annotate.WAITING in annotate.clear(visit, 4)[2]
    assert annotate.grown(visit, other, [[5, 5]]) == [gr.skip()] * 4


def test_a_save_that_fails_is_not_said_to_be_a_photo_that_could_not_be_counted(monkeypatch):
    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    sheet = sheet_of("a.png")
    monkeypatch.setattr(annotate, "keep_file", full)
    with pytest.raises(gr.Error) as caught:
        annotate.save(Visit(), sheet, [[5, 5]])
    assert caught.value.message == "Something went wrong on the server. Please try again later."


@pytest.mark.parametrize(
    "sent",
    [{}, [1], "x", 7, {"name": "a", "width": "b", "height": 1}, {"width": 9, "height": 9}]
    + [
        {"name": "a", "width": w, "height": h, "digest": "", "opened": 1}
        for w, h in ((0, 9), (-4, -4), (10**6, 10**6), (10**8, 1))
    ],
)
def test_a_sheet_that_no_page_sent_gets_a_sentence(sent):
    assert shared.EXPIRED in annotate.grown(Visit(), sent, [])[0]
    calls = (lambda: annotate.save(Visit(), sent, []), lambda: annotate.go_on(sent, None, []))
    for call in calls:
        with pytest.raises(gr.Error) as caught:
            call()
        assert shared.EXPIRED in str(caught.value)


def test_a_photo_that_cannot_be_read_cannot_be_annotated():
    sheet, _, number, *_, box = annotate.start(Visit(), 1, uploaded("a.png", b"x"))
    assert box is None  # what is no picture leaves it
    assert sheet is None
    assert "alert" in number
    said, _, _, *files = annotate.save(Visit(), None, [])
    assert annotate.NOTHING_TO_SAVE in said
    assert files == [None] * 3


# video


@pytest.fixture
def clip(tmp_path: Path) -> bytes:
    """Twelve frames, six a second, the later the redder."""
    film(tmp_path / "clip.mp4", reds(range(0, 240, 20)), 6)
    return (tmp_path / "clip.mp4").read_bytes()


def test_a_clip_whose_frames_would_take_all_memory_is_refused_whatever_a_photo_may_have(
    clip, tmp_path, monkeypatch
):
    path = tmp_path / "clip.mp4"
    monkeypatch.setattr(clips, "LARGEST", 96 * 64)
    assert list(clips.frames(path, 1, None))
    monkeypatch.setattr(clips, "LARGEST", 96 * 64 - 1)
    for limit in (None, 200_000_000):
        with pytest.raises(shared.VisitorError, match="frames are too large: 96 × 64 pixels"):
            list(clips.frames(path, 1, limit))


@pytest.mark.parametrize(("kind", "codec"), [("h264", "libx264"), ("mpegts", "mpeg2video")])
def test_a_clip_whose_frames_grow_is_read_as_far_as_they_would_not_take_all_memory(
    kind, codec, tmp_path, monkeypatch
):
    monkeypatch.setattr(clips, "LARGEST", 96 * 64)
    path = tmp_path / f"clip.{kind}"
    for size in ((96, 64), (320, 240)):
        content = io.BytesIO()
        film(content, 25 * [Image.new("RGB", size)], 25, codec, kind)
        with path.open("ab") as file:
            file.write(content.getvalue())
    reading = clips.Reading()
    read = [pixels.shape for _, pixels in clips.frames(path, 25, None, reading)]
    assert len(read) > 10
    assert set(read) == {(64, 96, 3)}
    assert not reading.whole


def test_large_frames_are_decoded_by_one_thread(clip, tmp_path, monkeypatch):
    """Each thread holds a frame of its own."""
    path, threads = tmp_path / "clip.mp4", []
    pictures = clips._pictures_of

    def watched(*arguments: Any) -> Any:
        threads.append(pictures(*arguments))
        return threads[-1]

    monkeypatch.setattr(clips, "_pictures_of", watched)
    for large in (96 * 64, 96 * 64 - 1):
        monkeypatch.setattr(clips, "LARGE", large)
        reading = clips.frames(path, 1, None)
        next(reading)
        threads[-1] = threads[-1].codec_context.thread_count
    assert threads == [clips.THREADS, 1]


def last_of(steps: Any) -> Any:
    """What the page shows in the end."""
    *_, last = steps
    return last


def test_a_clip_becomes_counts_over_time_and_a_clip_with_its_maps(clip, offered):
    av = pytest.importorskip("av")
    summary, plot, marked, table = last_of(video.run(offered, uploaded("a.mp4", clip), 3, None))
    lines = list(csv.DictReader(io.StringIO(Path(table["value"]).read_text("utf-8-sig"))))
    seconds = [float(line["seconds"]) for line in lines]
    assert seconds == pytest.approx([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3], abs=0.01)
    assert {line["low"] for line in lines} == {""}  # so small, no range is known
    assert all("small" in line["remark"] for line in lines)
    counts = [float(line["count"]) for line in lines]
    assert counts == sorted(counts)
    assert counts[-1] > counts[0] + 20
    assert "the mean of 6 frames" in summary
    with av.open(marked["value"]) as container:
        assert len(list(container.decode(video=0))) == 6
    assert Path(plot["value"]).stat().st_size > 1000


def test_an_annotated_clip_lasts_as_long_as_its_clip(clip, offered):
    av = pytest.importorskip("av")
    _, _, marked, _ = last_of(video.run(offered, uploaded("a.mp4", clip), 10, None))
    with av.open(marked["value"]) as container:  # six frames a second, of ten asked for
        times = [float(frame.time) for frame in container.decode(video=0)]
        assert times == pytest.approx([i / 6 for i in range(12)], abs=0.01)
        assert container.duration / av.time_base == pytest.approx(2, abs=0.15)


def test_a_bare_stream_without_times_is_told_in_those_of_its_rate(offered, tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "a.h264"
    film(path, reds(range(0, 240, 6)), 10)
    with av.open(str(path)) as container:
        assert all(frame.time is None for frame in container.decode(video=0))
    times = [seconds for seconds, _ in clips.frames(path, 1, None)]
    assert times == pytest.approx([0, 1, 2, 3])


@pytest.mark.parametrize("size", [(180, 320), (96, 64), (320, 180), (2, 900)])
def test_the_count_stands_whole_on_an_annotated_frame(size, offered):
    pixels = np.full((size[1], size[0], 3), 200, np.uint8)
    picture = np.asarray(video.annotated(pixels, offered.count(None, pixels), 123456.7))
    white = np.argwhere((picture > 240).all(axis=2))  # (n, 2) row, column of the letters
    assert size[0] < 10 or white[:, 1].max() < picture.shape[1] - 1
    assert size[0] < 100 or len(white) > 20


def test_a_clip_with_sound_alone_is_said_to_have_no_pictures(offered, tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 8000
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    upload = uploaded("a.mp4", (tmp_path / "a.mp4").read_bytes())
    assert clips.NO_PICTURES in last_of(video.run(offered, upload, 1, None))[0]


def test_a_clip_of_one_frame_has_no_mean(clip, offered, monkeypatch):
    monkeypatch.setattr(clips, "MOST", 1)
    summary, *_ = last_of(video.run(offered, uploaded("a.mp4", clip), 1, None))
    assert "in one frame, at 0.0 s" in summary


def test_a_long_clip_is_cut_and_says_so(clip, offered, monkeypatch):
    monkeypatch.setattr(clips, "MOST", 4)
    summary, *_ = last_of(video.run(offered, uploaded("a.mp4", clip), 6, None))
    assert "only the first 4 frames were counted, up to 0.5 s" in summary
    monkeypatch.setattr(clips, "MOST", 12)
    summary, *_ = last_of(video.run(offered, uploaded("a.mp4", clip), 6, None))
    assert "the mean of 12 frames" in summary
    assert "only the first" not in summary


@pytest.fixture
def still(tmp_path: Path) -> Path:
    """A GIF of 30 frames of 96 x 64 pixels, ten a second, which change in one pixel."""
    first, *others = [Image.new("RGB", (96, 64)) for _ in range(30)]
    for number, other in enumerate(others):
        other.putpixel((0, 0), (8 * number, 250, 0))
    path = tmp_path / "still.gif"
    first.save(path, save_all=True, append_images=others, duration=100)
    return path


def test_a_clip_is_not_decoded_for_hours_where_few_frames_are_counted(still, offered, monkeypatch):
    pytest.importorskip("av")
    for frames, spent in ((100, False), (15, True)):
        monkeypatch.setattr(clips, "MOST_READ", frames * 96 * 64)
        reading = clips.Reading()
        times = [seconds for seconds, _ in clips.frames(still, 1, None, reading)]
        assert times == pytest.approx([0, 1] if spent else [0, 1, 2])
        assert reading.spent == spent
        summary, *_ = last_of(video.run(offered, uploaded("a.gif", still.read_bytes()), 1, None))
        assert (f"{video.CUT_SHORT} 1.0 s" in summary) == spent
        assert video.DAMAGED not in summary


def test_an_hour_of_1080p_is_not_too_much():
    assert clips.MOST_READ > 3600 * 25 * 1920 * 1080


def test_what_is_decoded_and_never_shown_is_not_read_for_hours_either(still, offered, monkeypatch):
    av = pytest.importorskip("av")
    context = SimpleNamespace(width=1000, height=1000)
    packets, hidden = [], SimpleNamespace(decode=lambda: packets.append(1) or [])
    clip = SimpleNamespace(demux=lambda stream: [hidden] * 50)
    monkeypatch.setattr(clips, "MOST_READ", 9_500_000)
    reading = clips.Reading()
    assert not list(clips._decoded(av, clip, SimpleNamespace(codec_context=context), reading))
    assert len(packets) == 10
    assert reading.spent
    monkeypatch.setattr(clips, "MOST_READ", -1)
    shown = last_of(video.run(offered, uploaded("a.gif", still.read_bytes()), 1, None))
    assert clips.TOO_LONG in shown[0]


def test_a_clip_that_is_stopped_shows_what_is_counted(clip, offered):
    upload = uploaded("a.mp4", clip)
    summary, _, _, table = last_of(video.run(offered, upload, 3, None, enough_after(2)))
    assert "the mean of 2 frames" in summary
    assert "stopped at 0.3 s" in summary
    assert video.DAMAGED not in summary
    assert len(Path(table["value"]).read_text("utf-8-sig").splitlines()) == 3
    assert video.STOPPED in last_of(video.run(offered, upload, 3, None, enough_after(0)))[0]


@pytest.mark.parametrize("content", [b"", b"no clip at all" * 99, encoded(noise(), "JPEG")[:500]])
def test_what_is_no_clip_gets_a_sentence(content, offered, uploads):
    pytest.importorskip("av")
    text = last_of(video.run(offered, uploaded("a.mp4", content), 1, None))[0]
    assert (clips.DAMAGED if content else clips.EMPTY) in text
    assert video.NO_CLIP in last_of(video.run(offered, None, 1, None))[0]


@pytest.mark.parametrize("suffix", ["m3u8", "mp4", "ts", "txt"])
@pytest.mark.parametrize("name", ["hls", "concat", "dash", "text"])
def test_no_list_of_clips_leads_to_a_file_of_the_server(name, suffix, clip, offered, tmp_path):
    pytest.importorskip("av")
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(clip)
    lists = {
        "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10.0,\n{}\n#EXT-X-ENDLIST\n",
        "concat": "ffconcat version 1.0\nfile {}\n",
        "dash": '<?xml version="1.0"?><MPD profiles="urn:mpeg:dash:profile:full:2011" '
        'mediaPresentationDuration="PT2S"><Period><AdaptationSet contentType="video">'
        '<Representation id="0"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period>'
        "</MPD>",
        "text": "\x1b[31mno clip, but {} is drawn in red\n" * 9,
    }
    sent = uploaded(f"evil.{suffix}", lists[name].replace("{}", str(secret)).encode())
    assert clips.DAMAGED in last_of(video.run(offered, sent, 1, None))[0]


@pytest.mark.parametrize(
    "suffix", ["mp4", "mov", "webm", "mkv", "avi", "gif", "ts", "mpg", "flv", "wmv"]
)
def test_clips_of_each_common_kind_are_counted(suffix, offered, tmp_path):
    path = tmp_path / f"clip.{suffix}"
    others = {"webm": "libvpx", "gif": "gif", "mpg": "mpeg1video", "flv": "flv", "wmv": "wmv2"}
    film(path, reds(range(0, 250, 5)), 25, others.get(suffix, "mpeg4"))
    for name in (path.name, "without an ending"):
        sent = uploaded(name, path.read_bytes())
        assert "the mean of 4 frames" in last_of(video.run(offered, sent, 2, None))[0]


def long_clip(path: Path, **options: str) -> Path:
    """Ten seconds of noise at 25 a second."""
    film(path, [noise(96, 64, seed) for seed in range(250)], 25, g="25", **options)
    return path


def test_after_a_damaged_part_a_clip_goes_on_and_says_so(offered, tmp_path):
    content = bytearray(long_clip(tmp_path / "a.mp4").read_bytes())
    whole = last_of(video.run(offered, uploaded("a.mp4", bytes(content)), 1, None))[0]
    assert "the mean of 10 frames" in whole
    assert video.DAMAGED not in whole
    at = len(content) * 3 // 10
    content[at : at + 40_000] = np.random.default_rng(1).bytes(40_000)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    reading = clips.Reading()
    times = [seconds for seconds, _ in clips.frames(path, 1, None, reading)]
    assert times[-1] == pytest.approx(9)
    assert len(times) >= 8
    assert reading.damaged
    shown = last_of(video.run(offered, uploaded("a.mp4", bytes(content)), 1, None))
    assert video.DAMAGED in shown[0]


def test_a_clip_that_was_cut_off_says_so(offered, tmp_path):
    content = long_clip(tmp_path / "a.mkv").read_bytes()
    cut = uploaded("a.mkv", content[: len(content) * 6 // 10])
    assert video.DAMAGED in last_of(video.run(offered, cut, 1, None))[0]


def test_clips_that_were_joined_are_counted_to_the_end(tmp_path):
    one = long_clip(tmp_path / "a.ts").read_bytes()
    (tmp_path / "both.ts").write_bytes(one + one)
    times = [seconds for seconds, _ in clips.frames(tmp_path / "both.ts", 1, None)]
    assert len(times) in (19, 20)
    assert times == sorted(times)


def test_a_clip_that_nobody_waits_for_is_read_no_further(tmp_path, clip):
    path = tmp_path / "a.mp4"
    path.write_bytes(clip)
    seen: list[int] = []

    def meanwhile() -> None:
        seen.append(1)
        if len(seen) == 5:  # of twelve, all within the first step
            raise shared.NotWantedError

    frames = clips.frames(path, 0.1, None, clips.Reading(meanwhile))
    next(frames)
    with pytest.raises(shared.NotWantedError):
        next(frames)


@pytest.mark.parametrize(
    ("matrix", "seen"),
    [
        ((1, 0, 0, 1), lambda frame: frame),
        ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
        ((1, 0, 0, -1), lambda frame: frame[::-1]),
        ((-1, 0, 0, -1), lambda frame: frame[::-1, ::-1]),
        ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
        ((0, -1, 1, 0), lambda frame: np.rot90(frame, 1)),
        ((0, 1, 1, 0), lambda frame: frame.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda frame: frame[::-1, ::-1].transpose(1, 0, 2)),
    ],
)
def test_frames_are_turned_and_mirrored_as_the_clip_says(tmp_path, matrix, seen):
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:16, :24, 0] = frame[:16, 72:, 1] = 255
    path = tmp_path / "a.mp4"
    film(path, [Image.fromarray(frame)])
    content = path.read_bytes()
    a, b, c, d = matrix
    place = content.index(b"tkhd") + 4 + 24 + 16  # of the matrix, after the header's other entries
    moved = [96 * (a < 0) + 64 * (c < 0), 96 * (b < 0) + 64 * (d < 0)]
    entries = [a << 16, b << 16, 0, c << 16, d << 16, 0, moved[0] << 16, moved[1] << 16, 1 << 30]
    path.write_bytes(content[:place] + struct.pack(">9i", *entries) + content[place + 36 :])
    ((_, pixels),) = clips.frames(path, 1, None)
    assert pixels.shape == seen(frame).shape
    assert np.abs(pixels.astype(int) - seen(frame)).mean() < 12


def test_frames_of_pixels_that_are_no_squares_are_seen_in_their_shape(tmp_path):
    path = tmp_path / "a.mp4"
    film(path, [Image.new("RGB", (720, 576))], aspect=Fraction(64, 45))
    ((_, pixels),) = clips.frames(path, 1, None)
    assert pixels.shape == (405, 720, 3)  # no larger than before: there is a limit to pixels


def test_the_brightness_of_hdr_is_that_of_a_usual_screen():
    assert clips._brightness(1) is None
    for curve, white in ((16, 0.58), (18, 0.75)):  # of ITU-R BT.2408, as shares of the signal
        table = clips._brightness(curve)
        assert table[0] == 0
        assert (np.diff(table.astype(int)) >= 0).all()
        assert table[round(255 * white)] == pytest.approx(255, abs=4)
        assert table[255] == 255


def test_data_beside_a_frame_that_the_reader_does_not_know_is_no_damage():
    class Unknown:
        rotation = -90

        @property
        def side_data(self) -> Any:
            raise ValueError("31 is not a valid Type")

    assert clips._turned(np.zeros((64, 96, 3), np.uint8), Unknown()).shape == (96, 64, 3)


@pytest.mark.parametrize("start", [0, 15])
def test_a_clip_whose_sound_lasts_longer_is_whole(offered, tmp_path, start):
    av = pytest.importorskip("av")
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        sound = container.add_stream("aac", rate=44100)
        for i in range(5):
            frame = av.VideoFrame.from_image(Image.new("RGB", (96, 64), (50 * i, 40, 40)))
            frame.pts, frame.time_base = start + i, Fraction(1, 1)
            container.mux(stream.encode(frame))
        for i in range(30):
            samples = np.zeros((1, 44100), np.float32)
            heard = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            heard.sample_rate, heard.pts = 44100, 44100 * i
            container.mux(sound.encode(heard))
        container.mux(stream.encode())
        container.mux(sound.encode())
    shown = last_of(video.run(offered, uploaded("a.mkv", path.read_bytes()), 1, None))
    assert "the mean of 5 frames" in shown[0]
    assert video.DAMAGED not in shown[0]


def test_a_slow_clip_is_whole(offered, clip):
    pytest.importorskip("av")
    slow = clips.Clip(0.1)
    for i in range(3):
        slow.add(Image.new("RGB", (96, 64), (50 * i, 40, 40)), 10.0 * i)
    shown = last_of(video.run(offered, uploaded("a.mp4", slow.finish()), 1, None))
    assert "the mean of 3 frames" in shown[0]
    assert video.DAMAGED not in shown[0]


def test_the_cover_of_a_song_is_no_clip():
    av = pytest.importorskip("av")
    cover = SimpleNamespace(disposition=av.stream.Disposition.attached_pic)
    song = SimpleNamespace(streams=SimpleNamespace(video=[cover], audio=[]))
    with pytest.raises(shared.VisitorError, match="sound but no video"):
        clips._pictures_of(av, song)


def test_the_frames_of_a_clip_are_told_one_after_the_other(clip, offered, monkeypatch):
    pytest.importorskip("av")
    heard: list[Any] = []
    upload = uploaded("a.mp4", clip)
    progress = lambda done, **words: heard.append((done, words["desc"]))  # noqa: E731
    last_of(video.run(offered, upload, 3, None, progress))
    assert [done for done, _ in heard] == [(i, 6) for i in range(6)]
    assert heard[-1][1] == "Counting the people at 1.7 s, 5 of 6 frames"
    monkeypatch.setattr(clips, "MOST", 4)
    reading = clips.Reading()
    next(clips.frames(Path(upload["path"]), 10, None, reading))
    assert reading.expected == 4


def test_a_clip_of_which_nothing_is_counted_for_long_is_told_as_being_read(monkeypatch):
    heard: list[Any] = []
    clock = iter([0.0, 0.5, 1.5, 1.6, 2.0])
    monkeypatch.setattr(video, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    meanwhile = video._given_up(lambda share, desc: heard.append((share, desc)))
    meanwhile()
    assert heard == []
    meanwhile()
    assert heard == [(None, "Reading the clip")]
    monkeypatch.setattr("demo.video.still_here", lambda: pytest.fail("asked too often"))
    meanwhile()


def test_a_clip_is_counted_no_further_once_nobody_waits_for_it(clip, offered, monkeypatch):
    pytest.importorskip("av")
    counted = []
    count, clock = offered.count, iter(range(0, 1000, 2))
    monkeypatch.setattr(offered, "count", lambda *args: counted.append(1) or count(*args))
    monkeypatch.setattr(video, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    steps = video.run(offered, uploaded("a.mp4", clip), 6, None)
    nothing_new = next(steps)  # Gradio stops a call nowhere but at such a step
    assert all("value" not in update for update in nothing_new)
    steps.close()
    assert len(counted) == 1


def test_after_a_gap_a_clip_is_sampled_at_its_rate_and_not_in_a_burst(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "gap.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, level in enumerate([*range(20), *range(60, 80)]):  # ten a second, none from 2 to 6 s
            frame = av.VideoFrame.from_image(Image.new("RGB", (96, 64), (3 * i, 40, 40)))
            frame.pts, frame.time_base = level * 100, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    seconds = [seconds for seconds, _ in clips.frames(path, 2, None)]
    assert seconds == pytest.approx([0, 0.5, 1, 1.5, 6, 6.5, 7, 7.5], abs=0.01)


def test_large_frames_are_refused(clip, offered, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.setattr(offered.find(), "max_pixels", 1000)
    refused = last_of(video.run(offered, uploaded("a.mp4", clip), 1, None))
    assert "96 × 64" in refused[0]


def test_without_pyav_the_tab_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(shared.VisitorError, match="PyAV"):
        clips.reader()


# models, scenes, hosting


def test_models_are_found_by_name_and_two_of_one_name_stay_apart():
    offered = Models([PlainCounter("a"), PlainCounter("a", 2.0)])
    assert offered.names == ["a", "a (2)"]
    assert offered.find().factor == 1.0
    assert offered.find("a (2)").factor == 2.0
    pixels = np.zeros((16, 16, 3), np.uint8)
    named = {name: offered.count(name, pixels).model for name in (None, "", "a", "a (2)")}
    assert named == {None: "a", "": "a", "a": "a", "a (2)": "a (2)"}
    with pytest.raises(shared.VisitorError, match=r"a, a \(2\)"):
        offered.find("b")


def test_a_card_has_the_models_errors(model, monkeypatch):
    errors = {"images": 60, "mae": 123.34, "rmse": 194.2, "nae": 0.227}
    monkeypatch.setattr(model, "metrics", {"<validation>": errors, "note": 3})
    counter = PlainCounter("<org>/x")
    counter.model = model
    html = card_html(counter.name, counter)
    assert "<org>" not in html
    assert "<validation>" not in html
    for figure in ("<td>60</td>", "<td>123.3</td>", "<td>194.2</td>", "<td>0.227</td>"):
        assert figure in html
    words = "On 60 photos (&lt;validation&gt;) its counts were off by 123.3 people on average"
    assert f"{words}, 23% of the people in the photo." in html


def test_a_joint_models_card_has_its_errors_on_each_part(model, monkeypatch):
    part = {"images": 60, "mae": 12.5, "nae": 0.1}
    both = {"images": 120, "mae": 50.0, "parts": {"part_B": part, "odd": 3}}
    monkeypatch.setattr(model, "metrics", {"validation": both})
    counter = PlainCounter("joint")
    counter.model = model
    html = card_html("joint", counter)
    assert "On 120 photos (validation) its counts were off by 50.0 people" in html
    assert "On 60 photos (validation, part_B) its counts were off by 12.5 people" in html
    assert "odd" not in html


def test_the_errors_of_a_refit_model_are_said_to_be_those_before_it(model, monkeypatch):
    monkeypatch.setattr(model, "metrics", {"validation": {"mae": 50.0}, "test": {"mae": 40.0}})
    monkeypatch.setattr(model, "training_record", {"refit": 900})
    counter = PlainCounter("refit")
    counter.model = model
    html = card_html("refit", counter)
    assert "(validation before the refit) its counts were off by 50.0 people" in html
    assert "(test) its counts were off by 40.0 people" in html


def test_a_model_without_a_record_has_a_card_too():
    html = card_html("plain", PlainCounter("plain"))
    assert "No error figures are recorded" in html
    assert error_in_words("test", {"mae": 20}) == (
        "On the photos (test) its counts were off by 20 people on average."
    )
    assert terms_and_text(PlainCounter("plain")) == ("", "")
    assert "What it was trained on is not recorded. It gives no prediction interval." in html


def test_the_card_shown_is_the_one_that_came_with_the_model(model, tmp_path):
    counter = PlainCounter("mine")
    counter.model = model
    assert read_card(str(tmp_path)) == ""
    terms, made = terms_and_text(counter, read_card(str(tmp_path)))
    assert terms == ""  # the text says them
    assert made.startswith(f"<p>{cards.NO_CARD}</p>\n<h1>CSRNet")
    assert "no terms beyond" in made
    assert "sha256" not in made
    assert "from_pretrained(&quot;mine&quot;)" in made
    model.save_pretrained(tmp_path)
    own = made.removeprefix(f"<p>{cards.NO_CARD}</p>\n")
    assert terms_and_text(counter, read_card(str(tmp_path))) == ("", own)
    head = "---\nlicense: other\nlicense_name: club-rules\n---\n"
    own = "# Ours\n\n## Licence\nAsk us.\n"
    (tmp_path / "README.md").write_text(head + own, encoding="utf-8")
    for source in (tmp_path, tmp_path / "thin.xml"):  # of an exported model the one beside it
        shown = terms_and_text(counter, read_card(str(source)))
        told = "<h1>Ours</h1>\n<h2>Licence</h2>\n<p>Ask us.</p>\n"
        assert shown == ("Licence: other · club-rules", told)
    assert terms_and_text(counter, "---\n: {\n---\n# A model\n")[0] == ""
    assert "<p>Licence: &lt;b&gt;</p>" in card_html("mine", counter, "Licence: <b>")


def test_a_readme_beside_an_exported_model_alone_is_not_its_card(tmp_path):
    (tmp_path / "README.md").write_text("# Another project")
    assert read_card(str(tmp_path / "thin.xml")) == ""


@pytest.mark.parametrize(
    ("card", "shown"),
    [
        ("a ![b](http://c/d.png) e", "<p>a b e</p>"),
        ("![b]\n\n[b]: http://c/d.png", "<p>b</p>"),
        ("[![b](http://c/d.svg)](http://c)", '<p><a href="http://c" T>b</a></p>'),
        ("a<img src=//c/d>b<!-- c -->e", "<p>a&lt;img src=//c/d&gt;be</p>"),
        ("<!-- a\n\nb -->\n\nc", "<p>c</p>"),
        ("<style>@import 'c'</style>", "<p>&lt;style&gt;@import &#x27;c&#x27;&lt;/style&gt;</p>"),
        ("Ask <owner> first.", "<p>Ask &lt;owner&gt; first.</p>"),
        ("[b](LICENSE)", "<p><a T>b</a></p>"),
        ("[b](javascript:c)", "<p>[b](javascript:c)</p>"),
        ("```x&#32;mermaid\na\n```", '<pre><code class="language-x">a\n</code></pre>'),
        ("a|b\n-|-", "<table>\n<thead>\n<tr>\n<th>a</th>\n<th>b</th>\n</tr>\n</thead>\n</table>"),
    ],
)
def test_a_strangers_card_has_browsers_fetch_and_run_nothing(card, shown):
    html = terms_and_text(PlainCounter("mine"), card)[1].strip()
    assert html == shown.replace(" T>", ' target="_blank" rel="noopener">')


def test_a_card_of_many_megabytes_is_cut_off():
    assert len(terms_and_text(PlainCounter("mine"), "a" * 10**7)[1]) < 101_000


@pytest.fixture
def commits(tmp_path, monkeypatch):
    """Two commits of org/ours in the Hub's cache, with the licence of each, the last on main."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    licences = {"a" * 40: "mit", "b" * 40: "cc-by-nc-4.0"}
    for commit, licence in licences.items():
        folder = tmp_path / "models--org--ours" / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    (tmp_path / "models--org--ours" / "refs").mkdir()
    (tmp_path / "models--org--ours" / "refs" / "main").write_text(commit)
    return licences


def test_the_card_of_a_hubs_model_is_that_of_the_same_commit(commits, tmp_path, monkeypatch):
    counter = PlainCounter("org/ours")
    assert terms_and_text(counter, read_card("org/ours"))[0] == "Licence: cc-by-nc-4.0"
    assert 'href="https://huggingface.co/org/ours"' in card_html(counter.name, counter)
    (tmp_path / "models--org--ours" / "snapshots" / ("b" * 40) / "README.md").unlink()
    assert read_card("org/ours") is None  # nor is one awaited where there is no network
    assert terms_and_text(counter, None) == (cards.NOT_HAD, "")
    assert cards.NOT_HAD in card_html(counter.name, counter, cards.NOT_HAD)
    gone = EntryNotFoundError.__new__(EntryNotFoundError)  # whose arguments differ by version

    def raises(*_: Any, **__: Any) -> None:
        raise gone

    monkeypatch.setattr(cards, "hf_hub_download", raises)
    assert read_card("org/ours") == ""  # the repository has none at that commit


def test_the_card_of_a_model_by_its_commit_is_that_of_the_commit(commits):
    for commit, licence in commits.items():
        counter = PlainCounter(f"org/ours@{commit}")
        assert terms_and_text(counter, read_card(counter.name))[0] == f"Licence: {licence}"
        link = f'href="https://huggingface.co/org/ours/tree/{commit}"'
        assert link in card_html(counter.name, counter)
    assert '/tree/a%22b"' in card_html("ours", PlainCounter('org/ours@a"b'))


def test_a_card_says_what_the_model_was_trained_and_its_interval_calibrated_on(model, monkeypatch):
    counter = PlainCounter("mine")
    counter.model = model
    record = dict.fromkeys(RECIPE, 1) | {"name": "Our <square>", "steps": 11802}
    monkeypatch.setattr(model, "training_record", record)
    monkeypatch.setattr(model, "interval", PredictionInterval(0.9, 0.3, 60))
    html = card_html("mine", counter)
    assert "Trained with the recipe &quot;Our &lt;square&gt;&quot; for 11,802 steps." in html
    assert "Its 90% prediction interval was calibrated on 60 photos." in html
    monkeypatch.setattr(model, "training_record", {"converted_from": "partA.pth.tar"})
    assert "Converted from partA.pth.tar; how that was trained is not" in card_html("m", counter)


def test_spaces_gpu_wraps_the_counting_alone_and_only_on_zero_gpu(monkeypatch):
    wrapped: list[Any] = []

    class Spaces:
        @staticmethod
        def GPU(duration: int) -> Any:  # noqa: N802
            assert duration < 60  # what is asked for of a visitor's quota where nothing is said
            return lambda function: wrapped.append(function) or function

    monkeypatch.setitem(sys.modules, "spaces", Spaces)
    assert models.on_gpu(len) is len
    assert not wrapped
    monkeypatch.setattr(models, "ZERO_GPU", True)
    counter = PlainCounter("a")
    heard: list[Any] = []
    count = counter.count
    monkeypatch.setattr(
        counter,
        "count",
        lambda pixels, progress=None: heard.append(progress) or count(pixels),
    )
    Models([counter]).count(None, np.asarray(noise()), lambda done, of: None)
    assert [function.__name__ for function in wrapped] == ["_tensor_part"]
    assert heard == [None]  # a callback cannot cross to the other process
    monkeypatch.setitem(sys.modules, "spaces", None)
    assert models.on_gpu(len) is len


def test_a_batch_ends_at_the_photo_for_which_no_time_on_the_gpu_is_left(offered, monkeypatch):
    files = [uploaded(f"{seed}.png", encoded(noise(seed=seed))) for seed in range(4)]
    count = Models.count

    def spent(self: Models, name: Any, pixels: Any, progress: Any = None) -> Any:
        if (pixels == np.asarray(noise(seed=0))).all():
            return count(self, name, pixels, progress)
        raise gr.Error("You have exceeded your free GPU quota (20s requested vs. 3s left).")

    monkeypatch.setattr(Models, "count", spent)
    for zero, rows in ((False, 4), (True, 2)):
        monkeypatch.setattr(models, "ZERO_GPU", zero)
        *_, shown = batch.run(offered, files, None)
        table = shown[1]["value"]
        assert len(table) == rows
        assert "exceeded your free GPU quota" in table[1][-1]
    assert "total of 1 of 4 photos" in shown[0]
    assert "stopped with 2 photos left" in shown[0]
    *_, shown = batch.run(offered, files[1:], None)
    assert "exceeded your free GPU quota" in shown[0]  # in the place of a count


def test_a_worker_of_zero_gpu_that_fails_shows_no_class_name(offered, monkeypatch):
    def fails(*_: Any) -> None:
        raise gr.Error("ValueError", title="ZeroGPU worker error")

    monkeypatch.setattr(offered, "_count", fails)
    with pytest.raises(gr.Error, match=shared.UNEXPECTED), shared.sentences_for_visitors():
        offered.count(None, np.asarray(noise()))


def test_what_is_counted_of_a_batch_keeps_no_map(offered):
    line = batch.count_one(offered, uploaded("a.png", encoded(noise())), None)
    assert line.result.density.size == 0
    assert line.result.density.base is None


@pytest.mark.parametrize(
    ("error", "said", "alone"),
    [
        (
            gr.Error("You have exceeded your free GPU quota (20s requested vs. 3s left)."),
            "GPU quota used up at 0.5 s",
            "exceeded your free GPU quota",
        ),
        (RuntimeError("CUDA out of memory"), "error on the server at 0.5 s", shared.UNEXPECTED),
    ],
)
def test_a_clip_that_cannot_be_counted_to_its_end_shows_what_is_counted(
    error, said, alone, clip, offered, monkeypatch
):
    count, counted = Models.count, []

    def spent(self: Models, name: Any, pixels: Any, progress: Any = None) -> Any:
        if len(counted) == 2:
            raise error
        counted.append(name)
        return count(self, name, pixels, progress)

    monkeypatch.setattr(Models, "count", spent)
    monkeypatch.setattr(models, "ZERO_GPU", True)
    shown = last_of(video.run(offered, uploaded("a.mp4", clip), 2, None))
    assert "the mean of 2 frames" in shown[0]
    assert said in shown[0]
    assert " · model " in shown[0]
    shown = last_of(video.run(offered, uploaded("a.mp4", clip), 2, None))
    assert alone in shown[0]


def test_a_plot_is_read_on_any_page_and_where_it_is_downloaded():
    for plot in (plots.histogram([3, 9]), plots.timeline([0, 1], [3, 9], [(2, 4), (8, 12)], 0.9)):
        assert plot.mode == "RGB"
        assert plot.getpixel((0, 0)) == (255, 255, 255)


def test_plots_want_no_latex():
    with rc_context({"text.usetex": True}):  # in the host's matplotlibrc
        assert plots.histogram([3, 9]).size == plots.timeline([0, 1], [3, 9], [(2, 4)] * 2).size


def test_a_drawn_scene_has_its_heads_where_they_are_drawn_and_is_the_same_again():
    picture, heads = scenes.draw_scene(50, (240, 160), seed=4)
    again, _ = scenes.draw_scene(50, (240, 160), seed=4)
    other, _ = scenes.draw_scene(50, (240, 160), seed=5)
    assert picture == again
    assert picture != other
    assert heads.shape == (50, 2)
    assert density_map(heads, 160, 240, sigma=3.0).sum() == pytest.approx(50)
    assert len(scenes.draw_scene(0, (240, 160))[1]) == 0


@pytest.mark.parametrize("people", photo.DRAWN.values())
def test_no_head_of_a_drawn_scene_hides_another(people):
    picture, heads = scenes.draw_scene(people, seed=people)
    apart = np.hypot(*(heads[:, None] - heads[None]).T) + 1e3 * np.eye(people)
    across = (heads[:, 1] - heads[0, 1]) / (heads[-1, 1] - heads[0, 1])  # from back to front
    radius = picture.height * (0.010 + 0.018 * across)  # or less: the foremost is not the largest
    touching = apart / (radius[:, None] + radius)
    assert touching.min() > 0.5
    assert (touching.min(axis=1) < 0.8).mean() < 0.05


def test_web_addresses_are_found_wherever_a_file_can_be():
    for path in ("http://a/b.jpg", " HTTPS://a", "file:///etc/passwd", "ftp://x"):
        assert sent.has_address([1, {"video": {"path": path}}])
    for value in (None, "http://a", {"path": "/tmp/x"}, {"path": "C:\\x"}, {"path": "C:/x"}, [[1]]):
        assert not sent.has_address(value)


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}])
def test_what_somebody_sends_fails_nobody_elses_call_however_deep_it_is(wrap, monkeypatch):
    async def answers(self: Any, *, session_hash: str) -> str:
        return "counted"

    monkeypatch.setattr(gr.Blocks, "process_api", answers)
    page = visitors.Page()
    file = keep_file("deep.png", b"x")
    deep: Any = {"path": file}
    for _ in range(5000):  # which Python's reader of JSON takes from 3.12 on
        deep = wrap(deep)
    waiting = SimpleNamespace(
        session_hash="program", data=SimpleNamespace(data=[deep]), concurrency_id=""
    )
    page._queue.event_ids_to_events["1"] = waiting
    page._looked -= visitors.LOOK_EVERY + 1
    assert asyncio.run(page.process_api(session_hash="me")) == "counted"
    assert page._awaited("me") == {file}
    assert not sent.has_address(deep)


@pytest.mark.parametrize("lacking", ["temp_file_sets", "state_holder"])
def test_a_gradio_without_its_inner_parts_still_answers_and_removes_files_by_age(
    lacking, monkeypatch, caplog
):
    file = keep_file("mine.png", b"x")

    async def other(self: Any, *, asked: Any, session_hash: str) -> list[Any]:
        return [asked]

    monkeypatch.setattr(gr.Blocks, "process_api", other)
    page = visitors.Page()
    page.temp_file_sets, page.state_holder = [{file}], object()
    delattr(page, lacking)
    answer = asyncio.run(page.process_api(asked={"path": file}, session_hash="me"))
    assert answer == [{"path": file}]
    page.forget(Request())
    assert "unlike those" in caplog.text
    assert CLEAN_EVERY + KEEP_FOR <= 3600  # for what is left
    with pytest.raises(gr.Error, match="send the file itself"):
        asyncio.run(page.process_api(asked={"path": "http://a/b.jpg"}, session_hash="me"))


def test_a_file_that_another_call_waits_for_stays_when_a_visitor_leaves(monkeypatch):
    file = Path(keep_file("same.png", b"x"))
    sent = [{"path": str(file)}]

    async def other(self: Any, *, asked: Any, session_hash: str) -> None: ...

    monkeypatch.setattr(gr.Blocks, "process_api", other)
    page = visitors.Page()
    page.temp_file_sets = [{str(file)}]
    waiting = SimpleNamespace(session_hash="program", data=SimpleNamespace(data=sent))
    page._queue.event_ids_to_events["1"] = waiting
    for expected in (True, False):
        asyncio.run(page.process_api(asked=sent, session_hash="me"))
        page.forget(Request())
        assert file.is_file() == expected
        waiting.session_hash = "me"  # one's own call keeps nothing


def test_one_who_leaves_while_files_are_looked_after_breaks_no_other_call(monkeypatch):
    async def answers(self: Any, *, asked: Any, session_hash: str) -> str:
        return "counted"

    monkeypatch.setattr(gr.Blocks, "process_api", answers)
    page = visitors.Page()
    for session in ("me", "another"):
        asked = [{"path": keep_file(f"{name}.png", b"x")} for name in "ab"]
        asyncio.run(page.process_api(asked=asked, session_hash=session))
    lexists = os.path.lexists

    def meanwhile(path: str) -> bool:
        page.forget(Request())  # in a thread of its own; its session is "me"
        return lexists(path)

    monkeypatch.setattr("os.path.lexists", meanwhile)
    page._looked -= visitors.LOOK_EVERY + 1
    assert asyncio.run(page.process_api(asked=None, session_hash="another")) == "counted"


def test_a_file_goes_with_its_visitor_though_its_button_was_updated_before():
    file = keep_file("mine.csv", b"x")
    with visitors.Page() as page:
        button = gr.DownloadButton()
        for call in (gr.skip, lambda: file):
            gr.on(None, call, None, button)
    state = SessionState(page)
    for fn in page.fns.values():
        asyncio.run(page.process_api(fn, [], state=state, session_hash="me"))
    assert Path(file).is_file()
    page.forget(Request())
    assert not Path(file).exists()


def test_what_a_call_wrote_goes_with_its_visitor_though_no_answer_names_it(monkeypatch):
    """As of a count that was given up: Gradio hears of its files from answers alone."""
    kept: list[Path] = []

    async def gives_up(self: Any, *, session_hash: str) -> None:
        kept.append(Path(await asyncio.to_thread(keep_file, "overlay.png", b"x")))
        raise shared.NotWantedError

    monkeypatch.setattr(gr.Blocks, "process_api", gives_up)
    page = visitors.Page()
    with pytest.raises(shared.NotWantedError):
        asyncio.run(page.process_api(session_hash="me"))
    assert kept[0].is_file()  # it may be shown by a later step
    assert {str(kept[0])} <= page.upload_file_set  # which goes by age too
    page.forget(Request())
    assert not kept[0].parent.exists()


def test_what_is_old_is_removed_though_files_come_meanwhile(monkeypatch):
    with visitors.Page() as page:
        photo = gr.Image()
    page.queue()
    old = [[Path(keep_file("old.png", b"x")) for _ in range(3)] for _ in range(2)]
    for files, known in zip((photo.temp_files, page.upload_file_set), old):
        files.update(map(str, known))
        assert any(files is one for one in page.temp_file_sets)
    lstat = Path.lstat

    def meanwhile(self: Path) -> Any:
        for files in (photo.temp_files, page.upload_file_set):
            files.add(f"{self}-{len(files)}")
        return lstat(self)

    monkeypatch.setattr(Path, "lstat", meanwhile)
    delete_files_created_by_app(page, None)
    assert not any(path.exists() for known in old for path in known)


def test_on_windows_too_no_file_of_a_long_batch_goes_while_it_is_needed(monkeypatch):
    page = visitors.Page()
    page.queue()
    needed = Path(keep_file("needed.png", b"x"))
    page.upload_file_set.add(str(needed))
    now = time.time()
    told = SimpleNamespace(st_mode=0, st_mtime=now, st_ctime=now - 3 * KEEP_FOR)  # when it was made
    monkeypatch.setattr(Path, "lstat", lambda self: told)
    delete_files_created_by_app(page, page.delete_cache[1])
    sweep()
    monkeypatch.undo()
    assert needed.exists()


def test_nothing_that_anybody_sends_ends_the_removal_of_what_is_old(monkeypatch):
    async def answers(self: Any, *, asked: Any, session_hash: str) -> None: ...

    monkeypatch.setattr(gr.Blocks, "process_api", answers)
    with visitors.Page() as page:
        photo = gr.Image()
    page.queue()
    own = Path(keep_file("own.png", b"x"))
    odd = [f"{own}/x", f"{own.parent}/{'a' * 300}", f"{own.parent}/\0.png", str(own.parent)]
    photo.temp_files.update([str(own), *odd])
    for session in ("a", "b"):
        page._looked -= visitors.LOOK_EVERY + 1
        asyncio.run(page.process_api(asked=[str(own), *odd], session_hash=session))
    assert page._visitors["a"].files == {str(own)}
    delete_files_created_by_app(page, None)
    assert not own.exists()
    assert photo.temp_files <= {str(own.parent)}


def test_what_a_broken_off_upload_or_a_killed_server_leaves_goes_within_the_hour(
    uploads, monkeypatch
):
    partial = uploads / "tmpab12cd34"  # as Gradio calls an upload that is coming in
    partial.write_bytes(b"x")
    left, needed, example = (Path(keep_file(f"{name}.png", b"x")) for name in "lne")
    with visitors.Page() as page:
        photo = gr.Image()
    photo.keep_in_cache.add(str(example))
    page._closed.set()  # once, and no more
    page._tidy()
    assert all(path.exists() for path in (partial, left, needed, example))
    later = time.time() + KEEP_FOR + 1
    monkeypatch.setattr("demo.files.time", SimpleNamespace(time=lambda: later))
    os.utime(needed, (later, later))  # as for a call that waits
    monkeypatch.setattr("os.utime", lambda path, utime=os.utime: utime(path, (later, later)))
    page._tidy()
    assert [path.exists() for path in (partial, left, needed, example)] == [
        False,
        False,
        True,
        True,
    ]
    assert not left.parent.exists()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="users are told apart otherwise here")
def test_no_other_user_of_the_machine_can_read_what_visitors_send(uploads, monkeypatch):
    uploads.chmod(0o755)
    visitors.Page()
    file = Path(keep_file("a.png", b"x"))
    assert [path.stat().st_mode & 0o077 for path in (uploads, file.parent)] == [0, 0]
    monkeypatch.setattr("os.getuid", lambda: uploads.stat().st_uid + 1)
    with pytest.raises(OSError, match="set GRADIO_TEMP_DIR"):
        visitors.Page()


@pytest.mark.parametrize("name", ["=cmd().jpg", "a:b.jpg", "-1.jpg"])
def test_the_heads_saved_of_a_photo_are_not_said_to_be_of_another(tmp_path, name):
    table = tmp_path / "heads.csv"
    table.write_bytes(to_csv(np.float32([[1, 2]]), kept_name(name)))
    assert of_another(table, name, (60, 40)) == []
    assert "Is it the right annotation" in of_another(table, "other.jpg", (60, 40))[0]


def test_the_folders_of_files_that_went_by_their_age_go_with_what_is_known_of_a_visitor(
    monkeypatch,
):
    kept: list[Path] = []

    async def writes(self: Any, *, session_hash: str) -> None:
        kept.append(Path(keep_file("a.csv", b"x")))

    monkeypatch.setattr(gr.Blocks, "process_api", writes)
    page = visitors.Page()
    asyncio.run(page.process_api(session_hash="program"))
    kept[0].unlink()  # as Gradio does
    page._visitors["program"].seen -= visitors.FORGOTTEN + 1
    asyncio.run(page.process_api(session_hash="another"))
    assert [path.parent.exists() for path in kept] == [False, True]


def test_what_has_gone_is_forgotten_and_its_folder_removed_while_its_program_stays(monkeypatch):
    async def writes(self: Any, *, session_hash: str) -> list[str]:
        return [keep_file("map.npy", b"x")]

    monkeypatch.setattr(gr.Blocks, "process_api", writes)
    page = visitors.Page()
    (gone,), (stays,) = (asyncio.run(page.process_api(session_hash="program")) for _ in range(2))
    Path(gone).unlink()  # as Gradio does by its age
    page._looked -= visitors.LOOK_EVERY + 1
    (new,) = asyncio.run(page.process_api(session_hash="program"))
    assert not Path(gone).parent.exists()
    assert page._visitors["program"].files == {stays, new}


def test_a_gradio_whose_mcp_server_is_another_still_has_one(caplog):
    page = visitors.Page()
    page.mcp_server_obj = server = object()
    assert page.mcp_server_obj is server
    assert "MCP" in caplog.text


def test_an_upload_that_is_named_by_its_address_here_is_that_file_and_nothing_is_fetched(uploads):
    """As assistants name it: the tool that Gradio has them upload with gives an address."""

    class Server:
        convert_strings_to_filedata = GradioMCPServer.convert_strings_to_filedata

    page = visitors.Page()
    page.mcp_server_obj = Server()
    here = "https://org-space.hf.space/gradio_api/file="

    def converted(address: str) -> Any:
        sent = {"image": address, "model": None}
        return page.mcp_server_obj.convert_strings_to_filedata(sent, [["image"]])

    path = keep_file("a crowd.png", b"x")
    for address in (f"{here}{path}", here + quote(path)):
        file = {"path": path, "orig_name": "a crowd.png", "meta": {"_type": "gradio.FileData"}}
        assert converted(address) == {"image": file, "model": None}
    assert path in page.upload_file_set
    (uploads / "own.png").write_bytes(b"x")
    strangers = (uploads / "own.png", __file__, f"{path}.gone", f"{path}/../../own.png")
    for address in (*(f"{here}{other}" for other in strangers), f"http://a/b.png?{here}{path}"):
        assert sent.has_address(converted(address))  # which is refused, not fetched


def test_nothing_is_kept_of_a_visitor_who_has_left(monkeypatch):
    """Neither the pictures that the page showed, nor the place of one of the newest hundred."""

    async def answers(self: Any, *, session_hash: str) -> None:
        self.state_holder[session_hash]

    monkeypatch.setattr(gr.Blocks, "process_api", answers)
    with visitors.Page() as page:
        gr.State("here")
    page.queue()
    held = StateHolder()
    held.set_blocks(page)
    for session in ("me", "another"):
        asyncio.run(page.process_api(session_hash=session))
    page.forget(Request())
    assert list(held.session_data) == list(held.time_last_used) == ["another"]
    held["me"]  # as of Gradio's own call when a page that did nothing is closed
    asyncio.run(page.process_api(session_hash="me"))
    page.forget(Request())
    assert "me" not in held


@pytest.mark.parametrize("others", [0, 1])
def test_the_next_step_of_a_batch_brings_nobody_back_who_has_left(others, monkeypatch):
    kept: list[Path] = []

    async def step(self: Any, *, session_hash: str, iterator: Any = None) -> None:
        kept.append(Path(keep_file("thumbnail.jpg", b"x")))
        visitors.still_here()

    monkeypatch.setattr(gr.Blocks, "process_api", step)
    page = visitors.Page()
    asyncio.run(page.process_api(session_hash="me"))
    page._visitors["me"].running = others  # calls that have not ended yet
    page.forget(Request())
    with pytest.raises(shared.NotWantedError):
        asyncio.run(page.process_api(session_hash="me", iterator=iter("")))
    if others:
        page._visitors["me"].running = 0
        page.forget(Request())
    assert not any(path.exists() for path in kept)
    asyncio.run(page.process_api(session_hash="me"))  # the connection is back
    assert kept[-1].exists()


def test_answers_that_nobody_fetches_are_not_kept_for_ever(monkeypatch):
    async def answers(self: Any, *, session_hash: str) -> None: ...

    monkeypatch.setattr(gr.Blocks, "process_api", answers)
    page = visitors.Page()
    page.queue()
    queue = page._queue
    for session in ("gone", "waits", "runs", "soon", "unknown"):
        queue.pending_messages_per_session[session] = queue.pending_event_ids_session[session] = []
        if session != "unknown":
            asyncio.run(page.process_api(session_hash=session))
            page._visitors[session].seen -= visitors.FETCHED_WITHIN + 1
    page._visitors["soon"].seen += 2
    page._visitors["runs"].running = 1
    queue.event_ids_to_events["1"] = SimpleNamespace(
        session_hash="waits", data=None, concurrency_id=""
    )
    page._looked -= visitors.LOOK_EVERY + 1
    asyncio.run(page.process_api(session_hash="another"))
    assert set(queue.pending_messages_per_session) == {"waits", "runs", "soon"}
    assert set(queue.pending_event_ids_session) == {"waits", "runs", "soon"}


def test_the_page_keeps_its_files_where_gradio_does():
    assert str(upload_folder()) == get_upload_folder()


@pytest.mark.parametrize("named", [False, True])
def test_the_folder_of_files_has_one_name_though_a_link_leads_there(named, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    try:
        (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    except OSError:
        pytest.skip("no links on this file system")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "link"))
    monkeypatch.delenv("GRADIO_TEMP_DIR")
    if named:  # as a clone may be, whose files would be removed
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "link" / "csrnet-hub-main"))
    importlib.reload(demo)
    real = (tmp_path / "real").resolve()
    assert upload_folder().parent == (real / "csrnet-hub-main" if named else real)
    assert upload_folder().name.startswith("csrnet-hub-uploads")
    chosen = upload_folder()
    importlib.reload(demo)  # as in a process that this one starts
    assert upload_folder() == chosen
    file = keep_file("a.png", encoded(noise()))
    assert sent.files_in(file) == {file}
    assert shared.uploaded_path({"path": file}) == Path(file)


def test_a_picture_of_two_visitors_stays_until_both_have_left_an_example_for_ever(monkeypatch):
    file = Path(keep_file("same.png", b"x"))

    async def other(self: Any, *, asked: Any, session_hash: str) -> None: ...

    monkeypatch.setattr(gr.Blocks, "process_api", other)
    with visitors.Page() as page:
        examples = gr.Image()
    for kept in (False, True):
        examples.keep_in_cache = {str(file)} if kept else set()
        page.temp_file_sets = [{str(file)}]
        for one in ("me", "you"):
            asyncio.run(page.process_api(asked=[{"path": str(file)}], session_hash=one))
        for one, there in (("me", True), ("you", kept)):
            page.forget(SimpleNamespace(session_hash=one))
            assert file.is_file() == there
        file = Path(keep_file("drawn.png", b"x"))
