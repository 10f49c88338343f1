"""The page's endpoints as tools of the Model Context Protocol. Skipped without the extra "mcp"."""

from __future__ import annotations

import ast
import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

pytest.importorskip("gradio", minversion="6")
pytest.importorskip("mcp")
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

import app

from .page import PlainCounter, encoded, noise, serve


@pytest.fixture(scope="module")
def address(uploads: Path) -> Iterator[str]:
    page = app.build_app(PlainCounter("plain"))
    yield serve(page, **app.launch_options(mcp=True)) + "gradio_api/mcp/"
    page.close()


def ask(address: str, name: str = "", **arguments: Any) -> Any:
    """What a tool answers, or the list of tools if none is named."""

    async def talk() -> Any:
        async with streamablehttp_client(address) as (read, write, _):
            async with ClientSession(read, write) as session:
                await session.initialize()
                return await (session.call_tool(name, arguments) if name else session.list_tools())

    return asyncio.run(talk())


def test_the_tools_are_the_three_endpoints_with_described_parameters(address: str) -> None:
    tools = ask(address).tools
    assert [tool.name for tool in tools] == ["count", "density_map", "count_part"]
    for tool in tools:
        assert "photo" in tool.description or "people" in tool.description
        assert "JPEG" in tool.inputSchema["properties"]["image"]["description"]


def test_a_tool_counts_as_the_library_does(address: str) -> None:
    picture = encoded(noise())
    sent = "data:image/png;base64," + base64.b64encode(picture).decode()
    answer = ask(address, "count", image=sent, model="plain")
    assert not answer.isError
    expected = PlainCounter("plain").count(picture).count
    assert ast.literal_eval(answer.content[0].text)["count"] == pytest.approx(expected, rel=1e-6)


def test_what_a_tool_was_sent_is_removed_when_the_server_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradio.mcp.DEFAULT_TEMP_DIR", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    page = app.build_app(PlainCounter("plain"))
    there = {path for path in tmp_path.rglob("*") if path.is_file()}  # the examples
    address = serve(page, **app.launch_options(mcp=True)) + "gradio_api/mcp/"
    sent = "data:image/png;base64," + base64.b64encode(encoded(noise(seed=3))).decode()
    assert not ask(address, "count", image=sent, model="plain").isError
    assert {path for path in tmp_path.rglob("*") if path.is_file()} > there
    page.close()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == there


def test_no_web_address_is_fetched_for_a_tool(address: str, uploads: Path) -> None:
    answer = ask(address, "count", image="http://127.0.0.1:9/crowd.jpg", model="plain")
    assert answer.isError
    assert "send the file itself" in answer.content[0].text
    assert str(uploads) not in answer.content[0].text


def test_an_assistant_may_send_the_address_of_what_it_uploaded_here(
    address: str, uploads: Path
) -> None:
    picture = encoded(noise(seed=5))
    api = address.removesuffix("mcp/")
    sent = {"files": ("a crowd.png", picture)}
    (path,) = httpx.post(f"{api}upload", files=sent, trust_env=False).json()
    expected = PlainCounter("plain").count(picture).count
    for file in (path, quote(path)):
        answer = ask(address, "count", image=f"{api}file={file}", model="plain")
        assert not answer.isError
        count = ast.literal_eval(answer.content[0].text)["count"]
        assert count == pytest.approx(expected, rel=1e-6)
    (uploads / "mine.png").write_bytes(picture)  # the server's, and nobody's upload
    for other in (uploads / "mine.png", Path(__file__), Path(path).with_name("gone.png")):
        answer = ask(address, "count", image=f"{api}file={other}", model="plain")
        assert answer.isError
        assert "send the file itself" in answer.content[0].text
