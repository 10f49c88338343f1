"""The page's functions, its options, and its endpoints as a program sees them. No browser."""

from __future__ import annotations

import builtins
import importlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", minversion="6")
import gradio as gr
import httpx
import yaml
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from packaging.requirements import Requirement

import app
import demo
from csrnet_hub import CountResult, CrowdCounter, CSRNet, ImageError, ModelError
from csrnet_hub.extras import ExtraError
from csrnet_hub.resources import DEFAULT_MODEL, resource
from demo import programs, shared, visitors
from demo.counted import count_html, details_html, map_scale
from demo.files import CLEAN_EVERY, KEEP_FOR
from demo.sent import files_in

from .page import LIMIT, PlainCounter, Slow, encoded, fetched, posted, serve, words
from .page import noise as scene

README = Path(app.__file__).parent / "README.md"
HOSTING = README.parent / "docs" / "hosting.md"


@pytest.fixture(scope="module")
def counter(model: CSRNet) -> CrowdCounter:
    return CrowdCounter(model, device="cpu", name="<untrained>", max_pixels=LIMIT)


@pytest.fixture(scope="module")
def url(counter: CrowdCounter, uploads: Path) -> Iterator[str]:
    page = app.build_app(counter, PlainCounter("second", 2.0))
    yield serve(page)
    page.close()


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False, analytics_enabled=False)


def result(**changes: Any) -> CountResult:
    facts: dict[str, Any] = {
        "count": 1234.4,
        "density": np.full((10, 15), 0.25, np.float32),
        "width": 120,
        "height": 80,
        "seconds": 2.34,
        "model": "org/csrnet",
        "device": "cpu",
        "dtype": "float32",
        "tiles": 1,
    }
    return CountResult(**(facts | changes))


BAD_FILES = {
    "text": (b"this is no photo, whatever its name says\n" * 9, "text"),
    "cut": (encoded(scene(), "JPEG")[:900], "damaged"),
    "empty": (b"", "empty"),
    "too many pixels": (encoded(Image.new("RGB", (400, 300))), "pixels"),
}


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1234.4, "about 1,234 people"),
        (0.8, "about 1 person"),
        (0.2, "about 0 people"),
        (-3.0, "about 0 people"),
    ],
)
def test_the_count_is_said_as_a_person_would_say_it(count: float, words: str) -> None:
    assert shared.headline(count) == words


def test_the_unrounded_count_stands_below_the_rounded_one() -> None:
    said = words(count_html(result()))
    assert said.index("about 1,234 people") < said.index("1,234.40 before rounding")


def test_time_size_model_and_device_are_on_one_line() -> None:
    html = details_html(result())
    assert "2.3 s · 120 × 80 pixels · model org/csrnet · on cpu" in html
    assert "heads in 8 × 8 pixels" in map_scale(result())


def test_a_models_name_cannot_put_markup_on_the_page() -> None:
    html = details_html(result(model="<b>x</b>"))
    assert "<b>" not in html
    assert "&lt;b&gt;" in html


def test_an_upload_is_read_upright(uploads: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    (uploads / "turned.jpg").write_bytes(encoded(scene(120, 80), "JPEG", exif=exif))
    pixels = shared.read_photo({"path": str(uploads / "turned.jpg")}, LIMIT)
    assert pixels.shape == (120, 80, 3)


@pytest.mark.parametrize("upload", [None, {}, {"path": None}, "x.jpg", [], 7])
def test_no_photo_has_its_sentence(upload: Any) -> None:
    with pytest.raises(shared.VisitorError, match="no photo yet"):
        shared.read_photo(upload, LIMIT)


def test_an_upload_that_was_cleaned_away_has_its_sentence(uploads: Path) -> None:
    with pytest.raises(shared.VisitorError, match="choose the file again") as caught:
        shared.read_photo({"path": str(uploads / "gone.jpg")}, LIMIT)
    assert "gone.jpg" not in str(caught.value)


def test_pictures_of_the_server_that_nobody_uploaded_are_not_counted(
    uploads: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(scene()))
    around = uploads / ".." / secret.relative_to(uploads.parent)
    for path in (secret, around):
        assert path.is_file()
        with pytest.raises(shared.VisitorError, match="no longer here"):
            shared.read_photo({"path": str(path)}, LIMIT)


def test_a_fault_of_the_server_gives_nothing_away(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(gr.Error) as caught, shared.sentences_for_visitors():
        raise RuntimeError("cannot open /srv/private/model")
    assert caught.value.message == shared.UNEXPECTED
    assert "/srv/private/model" in caplog.text  # whoever runs the server can look it up


def test_a_sentence_cannot_put_markup_on_the_page() -> None:
    with pytest.raises(gr.Error) as caught, shared.sentences_for_visitors():
        raise ImageError("<img src=x> isn't a picture")
    assert caught.value.message == "&lt;img src=x&gt; isn't a picture"


def test_a_program_gets_the_count_of_the_library(
    client: Client, counter: CrowdCounter, tmp_path: Path
) -> None:
    photo = tmp_path / "crowd.png"
    photo.write_bytes(encoded(scene()))
    answer = client.predict(handle_file(photo), api_name="/count")
    assert answer["count"] == pytest.approx(counter.count(photo).count, rel=1e-6)
    assert answer["count"] > 0
    assert answer["seconds"] > 0
    assert answer["scale"] == 1
    facts = {name: answer[name] for name in ("width", "height", "model", "device")}
    assert facts == {"width": 120, "height": 80, "model": "<untrained>", "device": "cpu"}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_program_gets_the_sentence_and_no_path(
    name: str, client: Client, uploads: Path, tmp_path: Path
) -> None:
    content, word = BAD_FILES[name]
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(content)
    with pytest.raises(AppError, match=word) as caught:
        client.predict(handle_file(photo), api_name="/count")
    assert str(uploads) not in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("sent", ["crowd.jpg", 7, [1], {"name": "crowd.jpg"}, {"path": [1]}])
@pytest.mark.parametrize("name", ["/count", "/density_map"])
def test_a_program_that_sends_no_file_is_told_how_to_send_one(
    sent: Any, name: str, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    call = f"{url}gradio_api/call{name}"
    event = posted(call, json={"data": [sent, None]}).json()["event_id"]
    told = fetched(f"{call}/{event}").text
    assert "handle_file" in told
    assert "Traceback" not in capfd.readouterr().err


def test_a_program_gets_no_interval_of_a_picture_of_which_the_page_shows_none(
    client: Client, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    answer = client.predict(handle_file(tmp_path / "black.png"), "second", api_name="/count")
    assert answer["interval"] is None
    assert "small" in answer["notices"][0]
    assert "almost black" in answer["notices"][1]


def test_one_program_cannot_fill_the_queue_for_everybody(uploads: Path) -> None:
    slow = Slow()
    page = app.build_app(slow)
    api = f"{serve(page)}gradio_api/"
    (path,) = posted(f"{api}upload", files={"files": ("a.png", encoded(scene()))}).json()
    (fn,) = (number for number, fn in page.fns.items() if fn.api_name == "count")
    call = {"fn_index": fn, "data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, None]}

    def join(session: str) -> httpx.Response:
        sent = call | {"session_hash": session}
        return posted(f"{api}queue/join", json=sent)

    answers = [join("greedy") for _ in range(shared.MAX_WAITING + 2)]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert 0 < len(answers) - len(refused) <= shared.MAX_WAITING // 4 + 1  # one is being counted
    assert "Wait for answers" in refused[0].json()["detail"]
    assert join("another").status_code == 200
    slow.may.release(99)
    page.close()


def test_a_program_that_sends_nothing_is_told_so(client: Client) -> None:
    with pytest.raises(AppError, match="no photo yet"):
        client.predict(None, api_name="/count")


def test_a_program_cannot_read_files_of_the_server(url: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(scene()))
    call = f"{url}gradio_api/call/count"

    def told(path: str) -> str:
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}] if path else []
        event = posted(call, json={"data": data}).json()["event_id"]
        return fetched(f"{call}/{event}").text

    with secret.open("rb") as file:
        (own,) = posted(f"{url}gradio_api/upload", files={"files": file}).json()
    assert "event: complete" in told(own)  # though without a model
    assert "no photo yet" in told("")
    assert "event: error" in told(str(secret))
    assert str(tmp_path) not in told(str(secret))


def test_programs_get_named_endpoints_with_described_parameters(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)
    assert list(endpoints["named_endpoints"]) == ["/count", "/density_map", "/count_part"]
    assert not endpoints["unnamed_endpoints"]
    for name, parameters in (
        ("/count", ["image", "model"]),
        ("/density_map", ["image", "model"]),
        ("/count_part", ["image", "outline", "model"]),
    ):
        found = endpoints["named_endpoints"][name]["parameters"]
        assert [parameter["parameter_name"] for parameter in found] == parameters
        said = endpoints["named_endpoints"][name]["description"]
        assert all(f"{parameter}: " in said for parameter in parameters)


def test_a_program_may_name_the_model_and_is_told_of_a_wrong_name(
    client: Client, counter: CrowdCounter, tmp_path: Path
) -> None:
    large = scene(300, 300).point(lambda level: level // 2)
    (tmp_path / "crowd.png").write_bytes(encoded(large))
    photo = handle_file(tmp_path / "crowd.png")
    expected = PlainCounter("second", 2.0).count(tmp_path / "crowd.png").count
    answer = client.predict(photo, "second", api_name="/count")
    assert answer["count"] == pytest.approx(expected, rel=1e-6)
    assert answer["interval"] == pytest.approx([expected * 0.8, expected * 1.25])
    assert answer["level"] == 0.9
    assert answer["notices"] == []
    assert answer["model"] == "second"
    with pytest.raises(AppError, match="no such model"):
        client.predict(photo, "third", api_name="/count")


def test_a_program_gets_the_map_that_sums_to_the_count(client: Client, tmp_path: Path) -> None:
    photo = written(tmp_path)
    file = client.predict(handle_file(photo), "second", api_name="/density_map")
    density = np.load(file)
    assert density.shape == (10, 15)
    assert density.dtype == np.float32
    expected = PlainCounter("second", 2.0).count(photo).count
    assert density.sum(dtype=np.float64) == pytest.approx(expected)


def test_a_program_counts_a_part(client: Client, tmp_path: Path) -> None:
    photo = handle_file(written(tmp_path))
    half = [[0, 0], [60, 0], [60, 80], [0, 80]]
    left = client.predict(photo, half, "second", api_name="/count_part")
    whole = client.predict(photo, "second", api_name="/count")["count"]
    assert left["inside"] + left["outside"] == pytest.approx(left["count"])
    assert left["count"] == pytest.approx(whole)
    assert 0.3 * whole < left["inside"] < 0.7 * whole
    for outline in ([[0, 0], [9, 9]], "everywhere", [[1, 2, 3]] * 3):
        with pytest.raises(AppError, match=r"outline|points"):
            client.predict(photo, outline, "second", api_name="/count_part")


def test_no_web_address_is_fetched_for_a_program(url: str, client: Client) -> None:
    asked: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/crowd.jpg"
        with pytest.raises(AppError, match="send the file itself"):
            client.predict(handle_file(address), api_name="/count")
        call = f"{url}gradio_api/call/count"
        data = [{"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}]
        event = posted(call, json={"data": data}).json()["event_id"]
        told = fetched(f"{call}/{event}").text
        assert "event: error" in told
        server.shutdown()
    assert asked == []


@pytest.mark.parametrize("snippet", ["hosting.md", "the page's"])
def test_the_printed_snippet_works_as_printed(
    snippet: str,
    url: str,
    counter: CrowdCounter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text, here = programs.SNIPPET, programs.ADDRESS
    if snippet == "hosting.md":
        blocks = re.findall(r"```python\n(.*?)```", HOSTING.read_text(encoding="utf-8"), re.DOTALL)
        (text,) = (block for block in blocks if "gradio_client" in block)
        here = "http://127.0.0.1:7860"
    assert here in text
    (tmp_path / "crowd.jpg").write_bytes(encoded(scene(), "JPEG"))
    monkeypatch.chdir(tmp_path)
    exec(compile(text.replace(here, url), snippet, "exec"), {})
    count, interval = capsys.readouterr().out.splitlines()[-1].split()
    assert float(count) == pytest.approx(counter.count(tmp_path / "crowd.jpg").count, rel=1e-6)
    assert interval == "None"


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="no curl")
@pytest.mark.parametrize("snippet", ["hosting.md", "the page's"])
def test_the_printed_lines_for_a_shell_work_as_printed(
    snippet: str, url: str, counter: CrowdCounter, tmp_path: Path
) -> None:
    text, here = programs.SHELL, programs.ADDRESS
    if snippet == "hosting.md":
        (text,) = re.findall(r"```bash\n(.*?)```", HOSTING.read_text(encoding="utf-8"), re.DOTALL)
        here = "http://127.0.0.1:7860"
    assert here in text
    (tmp_path / "crowd.jpg").write_bytes(encoded(scene(), "JPEG"))
    line = text.replace(here, url if here == programs.ADDRESS else url.rstrip("/"))
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("event: complete\n"), done.stdout + done.stderr
    (answer,) = json.loads(done.stdout.split("data: ")[1])
    assert answer["count"] == pytest.approx(counter.count(tmp_path / "crowd.jpg").count, rel=1e-6)


def test_the_readmes_first_lines_describe_a_space_that_starts() -> None:
    _, front, _ = README.read_text(encoding="utf-8").split("---\n", 2)
    space = yaml.safe_load(front)
    assert (space["sdk"], space["suggested_hardware"]) == ("gradio", "t4-small")
    assert (README.parent / space["app_file"]).samefile(app.__file__)
    lines = (README.parent / "requirements.txt").read_text(encoding="utf-8").splitlines()
    (wanted,) = (Requirement(line) for line in lines if line.startswith("gradio"))
    assert space["sdk_version"] in wanted.specifier
    assert len(space["short_description"]) <= 60
    # The weights come with the Space: nothing is left to preload.
    assert (resource(DEFAULT_MODEL) / "model.safetensors").stat().st_size > 1_000_000


def written(folder: Path) -> Path:
    path = folder / "crowd.png"
    path.write_bytes(encoded(scene()))
    return path


def test_nothing_is_recorded_and_no_font_is_fetched(url: str) -> None:
    config = fetched(f"{url}config").json()
    assert config["analytics_enabled"] is False
    assert config["run_history"] is False
    assert "api" not in config["footer_links"]  # its lines would send a web address
    css = fetched(f"{url}theme.css").text
    assert not re.search(r"@font-face|@import|url\(.?http", css)


def test_uploads_are_gone_within_the_hour_and_when_the_server_stops(
    counter: CrowdCounter, uploads: Path
) -> None:
    page = app.build_app(counter)
    assert CLEAN_EVERY + KEEP_FOR <= 3600
    others = set(threading.enumerate())
    upload = f"{serve(page)}gradio_api/upload"
    begun = {thread.name for thread in threading.enumerate() if thread not in others}
    assert "old files" in begun  # removes them
    path = sent_to(upload)
    assert path.is_relative_to(uploads)
    assert path.is_file()
    page.close()
    assert not path.exists()


def sent_to(upload: str) -> Path:
    (path,) = posted(upload, files={"files": ("me.png", encoded(scene()))}).json()
    return Path(path)


@pytest.mark.parametrize("hangs", [False, True])
def test_no_upload_outlives_the_server_though_a_page_is_open(
    hangs: bool, counter: CrowdCounter, uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    page = app.build_app(counter)
    address = serve(page)
    end = page.server.close
    path = sent_to(f"{address}gradio_api/upload")
    with httpx.stream("GET", f"{address}gradio_api/heartbeat/me", timeout=60) as held:
        next(held.iter_bytes())
        assert path.is_file()
        monkeypatch.setattr(
            visitors, "time", SimpleNamespace(sleep=interrupt, monotonic=time.monotonic)
        )
        if hangs:
            monkeypatch.setattr(page.server, "close", lambda: None)
        page.block_thread()  # until Ctrl+C
        assert not path.exists()
        assert page.server.thread.is_alive() == hangs
    end()


def test_what_is_removed_is_a_file_of_the_page_and_nothing_else(uploads: Path) -> None:
    token = uploads / "0123"
    own = str(token / "a.jpg")
    strangers = [
        str(uploads / ".." / "a.jpg"),
        str(token / ".." / "a.jpg"),
        str(token / ".." / ".." / "a.jpg"),
        str(uploads),
        str(token),
        str(token / "deeper" / "a.jpg"),
        f"{uploads}_other/0123/a.jpg",
        "0123/a.jpg",
        "\0",
        str(token / ("a" * 300)),
        str(token / "gone.jpg"),
    ]
    for file in (own, *strangers[:3], strangers[5], strangers[6]):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_bytes(b"x")
    sent = {"path": own, "also": [strangers, {"and": tuple(strangers)}]}
    assert files_in(sent) == {own}


def test_no_program_makes_the_server_remove_what_is_not_the_pages(
    counter: CrowdCounter, uploads: Path
) -> None:
    """... nor keep all that it would have removed."""
    victim = uploads.parent / "victim.txt"
    victim.write_text("mine")
    page = app.build_app(counter)
    api = f"{serve(page)}gradio_api/"

    def call(name: str, data: list[Any]) -> None:
        number = next(k for k, fn in page.fns.items() if getattr(fn.fn, "__name__", "") == name)
        join = {"fn_index": number, "session_hash": "odd", "data": data}
        posted(f"{api}queue/join", json=join).raise_for_status()
        answers = fetched(f"{api}queue/data?session_hash=odd")
        assert "process_completed" in answers.text

    upload = posted(f"{api}upload", files={"files": ("me.png", b"me")})
    (path,) = map(Path, upload.json())
    odd = f"{uploads}/../{victim.name}"
    for digest in (odd, "0" * 16):
        sheet = {"name": odd, "width": 9, "height": 9, "digest": digest, "opened": 1.0}
        call("save", [None, sheet, "[]"])
    folder = {"path": str(path.parent), "meta": {"_type": "gradio.FileData"}}
    event = posted(f"{api}call/count", json={"data": [folder, None]}).json()
    fetched(f"{api}call/count/{event['event_id']}")
    page.close()
    assert victim.exists()
    assert not path.exists()


def test_mcp_is_off_until_asked_for_and_says_what_it_needs(
    started: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRADIO_MCP_SERVER", "True")
    app.main([])
    assert started["mcp_server"] is False
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    monkeypatch.setenv("CSRNET_MCP", "1")  # as on a Space, which passes no options
    app.main([])
    assert started["mcp_server"] is True
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="1"):
        app.main(["--mcp"])
    assert 'pip install "gradio[mcp]"' in capsys.readouterr().err


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What main() would load and launch, noted instead of done."""
    seen: dict[str, Any] = {}

    def load(cls: type, source: str) -> str:
        seen.setdefault("models", []).append(source)
        return source

    class Page:
        def launch(self, **options: Any) -> None:
            seen.update(options)

    monkeypatch.setattr(CrowdCounter, "from_pretrained", classmethod(load))
    monkeypatch.setattr(app, "build_app", lambda *_, cards: seen.update(cards=cards) or Page())
    monkeypatch.setattr(app, "read_card", lambda source: f"card of {source}")
    monkeypatch.setattr(app, "_around_proxies", lambda host: seen.update(without_proxy=host))
    for name in ("CSRNET_MODEL", "GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_SHARE"):
        monkeypatch.delenv(name, raising=False)
    return seen


@pytest.fixture
def started(noted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The same at an address that is free."""
    monkeypatch.setattr(app, "_check_address", lambda host, port: None)
    return noted


def test_the_demo_serves_its_own_weights_to_this_machine_alone(started: dict[str, Any]) -> None:
    app.main([])
    (source,) = started["models"]
    assert Path(source) == Path(app.__file__).parent / "weights" / "csrnet-joint"
    assert started["server_name"] == "127.0.0.1"
    assert started["share"] is False
    assert started["max_file_size"] == "50mb"


def test_a_host_can_set_everything_by_environment(
    started: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSRNET_MODEL", "org/other, mine")
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7999")
    app.main([])
    assert started["models"] == ["org/other", "mine"]
    assert started["cards"] == ["card of org/other", "card of mine"]
    assert (started["server_name"], started["server_port"]) == ("0.0.0.0", 7999)


def test_a_port_in_the_environment_that_is_none_gets_its_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for none in ("abc", ""):
        monkeypatch.setenv("GRADIO_SERVER_PORT", none)
        with pytest.raises(SystemExit, match="GRADIO_SERVER_PORT is not a port number"):
            importlib.reload(app)
    monkeypatch.setenv("GRADIO_SERVER_PORT", "99999")
    with pytest.raises(SystemExit):
        app.main([])
    assert "'99999' is not a port number" in capsys.readouterr().err


def test_an_ipv6_host_is_taken_with_brackets_and_without(started: dict[str, Any]) -> None:
    for host in ("::1", "[::1]"):
        app.main(["--host", host])
        assert started["server_name"] == started["without_proxy"] == "[::1]"


def test_the_page_reaches_itself_without_a_proxy_and_others_through_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("no_proxy", "NO_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("NO_PROXY", "known.example")
    monkeypatch.delenv("https_proxy")
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "http://proxy.example"})
    app._around_proxies("[fe80::1]")
    assert os.environ["https_proxy"] == "http://proxy.example"
    for host in ("known.example", "localhost", "127.0.0.1", "::1", "fe80::1"):
        assert urllib.request.proxy_bypass_environment(host)
    assert not urllib.request.proxy_bypass_environment("huggingface.co")
    monkeypatch.setenv("no_proxy", "*")
    app._around_proxies("localhost")
    assert urllib.request.proxy_bypass_environment("huggingface.co")


def test_a_proxy_that_gradio_cannot_be_imported_with_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = builtins.__import__
    said = "Using SOCKS proxy, but the 'socksio' package is not installed."

    def imports(name: str, *rest: Any) -> Any:
        if name == "gradio":
            raise ImportError(said)
        return own(name, *rest)

    monkeypatch.setattr(builtins, "__import__", imports)
    with pytest.raises(SystemExit, match=r"SOCKS proxy.* Unset ALL_PROXY, or: pip install"):
        importlib.reload(app)
    said = "no package of that name"
    with pytest.raises(ImportError, match=said):
        importlib.reload(app)


def test_without_a_folder_for_temporary_files_the_setting_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(SystemExit, match="set TMPDIR"):
        demo._folder()


def test_without_a_console_the_page_is_served_all_the_same(
    started: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    app.main([])
    assert started["server_name"] == "127.0.0.1"
    sys.stdout.close()
    sys.stderr.close()


def test_options_win_over_the_environment(
    started: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSRNET_MODEL", "org/other")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7999")
    app.main(
        [
            "--model",
            "mine",
            "--model",
            "org/two",
            "--host",
            "localhost",
            "--port",
            "8001",
            "--share",
        ]
    )
    assert (started["models"], started["server_name"]) == (["mine", "org/two"], "localhost")
    assert (started["server_port"], started["share"]) == (8001, True)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ModelError("There is no folder here."), 1, "There is no folder here."),
        (ExtraError("x", ImportError("openvino")), 1, "packages of extra x are installed but fail"),
        (KeyboardInterrupt("stopped"), 130, "stopped"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 64 MB.\nSee"),
            1,
            "mine could not be loaded (CUDA out of memory. Tried to allocate 64 MB): free",
        ),
        (
            RuntimeError("Check 'ops' failed at src/core.cpp:9\nSee the docs"),
            1,
            "mine could not be loaded (Check 'ops' failed at src/core.cpp:9).",
        ),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_line_and_an_exit_code(
    started: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    told: str,
) -> None:
    def fail(cls: type, source: str) -> None:
        raise error

    monkeypatch.setattr(CrowdCounter, "from_pretrained", classmethod(fail))
    with pytest.raises(SystemExit, match=f"^{code}$"):
        app.main(["--model", "mine"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("app.py: ")
    assert told in line


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "³"])
def test_a_port_that_cannot_be_is_a_sentence(
    started: dict[str, Any], port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        app.main([f"--port={port}"])
    assert f"{port!r} is not a port number" in capsys.readouterr().err
    assert not started


def test_an_address_that_cannot_be_served_at_is_said_before_a_model_is_loaded(
    noted: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*options: str) -> None:
        with pytest.raises(SystemExit, match="1"):
            app.main([*options])
        err = capsys.readouterr().err
        assert err.startswith("app.py: cannot serve at ")
        assert err.count(options[1]) == 1
        assert err.endswith("give another --host or --port\n")
        assert not noted

    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused("--port", str(taken.getsockname()[1]))
    refused("--host", "192.0.2.1")
    refused("--host", "a..b")

    def unknown(address: tuple[str, int], **options: Any) -> None:
        raise socket.gaierror(-2, f"Name unknown (while attempting to bind on address {address})")

    monkeypatch.setattr(socket, "create_server", unknown)
    refused("--host", "no.invalid")


def test_a_log_file_is_told_the_address_while_the_page_is_up(
    started: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", log)
    app.main([])
    print("* Running on local URL")
    assert log.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows ends a program otherwise")
def test_what_ends_a_service_ends_it_as_ctrl_c_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `systemctl stop`, `docker stop` or a closed terminal: with the files of its visitors."""
    kinds = (signal.SIGTERM, signal.SIGHUP)
    before = {kind: signal.getsignal(kind) for kind in kinds}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # by nohup
        app._end_as_interrupted()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        app._end_as_interrupted()
        for kind in kinds:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(kind)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
