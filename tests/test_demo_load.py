"""Many requests at once: none lost, none mixed up, and memory stays where it was."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", minversion="6")
import httpx

import app

from .page import PlainCounter, dots, serve

CLIENTS, REQUESTS = 8, 200
ROOM = 40  # MiB that memory may grow by after the warm-up; the photos' pixels are twice that


@pytest.fixture
def counter() -> PlainCounter:
    counter = PlainCounter("plain")
    counter.max_pixels = 200_000
    return counter


@pytest.fixture
def url(counter: PlainCounter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    page = app.build_app(counter)
    yield serve(page)
    page.close()


def resident() -> float:
    """MiB of this process in memory; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def counted(client: httpx.Client, photo: Path) -> float:
    """Upload a photo, ask for its count, wait for the answer."""
    (path,) = client.post("upload", files={"files": (photo.name, photo.read_bytes())}).json()
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, None]
    event = client.post("call/count", json={"data": data}).json()["event_id"]
    told = client.get(f"call/count/{event}").text
    name, content = told.strip().splitlines()[-2:]
    assert name == "event: complete", told
    count: float = json.loads(content.removeprefix("data: "))[0]["count"]
    return count


def test_two_hundred_requests_of_eight_clients_are_each_answered_with_their_own_count(
    url: str, counter: PlainCounter, tmp_path: Path
) -> None:
    photos = [dots(tmp_path / f"{i}.png", 5 + 9 * i, (480 + 8 * i, 320)) for i in range(CLIENTS)]
    expected = [counter.count(photo).count for photo in photos]
    assert len({round(count, 2) for count in expected}) == CLIENTS
    # plain HTTP: the client library would spend more than the server
    options: dict[str, Any] = {"base_url": f"{url}gradio_api/", "trust_env": False, "verify": False}
    clients = [httpx.Client(timeout=300, **options) for _ in photos]  # a busy machine is slow
    answers: list[list[float]] = [[] for _ in photos]

    def ask(i: int, times: int) -> None:
        for _ in range(times):
            answers[i].append(counted(clients[i], photos[i]))

    def all_ask(times: int) -> None:
        threads = [threading.Thread(target=ask, args=(i, times)) for i in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    all_ask(5)
    warm = resident()
    all_ask(REQUESTS // CLIENTS - 5)
    for client in clients:
        client.close()
    for found, count in zip(answers, expected):
        assert found == pytest.approx([count] * (REQUESTS // CLIENTS), rel=1e-6)
    assert resident() - warm < ROOM
