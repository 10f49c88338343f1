"""The Hub's client in a process of its own: it reads its environment when it is imported."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .fake_hub import FakeHub


class Loaded(NamedTuple):
    """What a model is: its config.json, a hash of all tensors, its count of a small picture."""

    config: dict[str, Any]
    tensors: str
    count: float


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


class HubClient:
    """Calls into that process; errors come back as they were raised there."""

    def __init__(self, url: str, home: Path, offline: bool = False) -> None:
        environment = {
            "HF_ENDPOINT": url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": str(int(offline)),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        self._pool = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), _prepare, (environment,)
        )

    def close(self) -> None:
        self._pool.shutdown()

    def work_in(self, folder: Path) -> None:
        """Change its working folder."""
        self._pool.submit(os.chdir, folder).result()

    def load(self, source: str | Path, token: str = "", **options: Any) -> Loaded:
        """``CSRNet.from_pretrained``."""
        return self._pool.submit(_load, source, token, options).result()

    def load_in_app(self, source: str | Path) -> float:
        """The count of the model that ``python app.py --model SOURCE`` serves."""
        return self._pool.submit(_load_in_app, source).result()

    def push(self, folder: Path, *arguments: str, token: str = "hf_writer") -> Outcome:
        """``python -m train.push FOLDER ...``."""
        return self._pool.submit(_push, [str(folder), *arguments], token).result()

    def push_to_hub(self, folder: Path, repo: str, **options: Any) -> list[str]:
        """``CSRNet.push_to_hub``; what it warns of."""
        return self._pool.submit(_push_to_hub, folder, repo, options).result()


@pytest.fixture(scope="session")
def hub() -> Iterator[FakeHub]:
    server = FakeHub()
    yield server
    server.close()


@pytest.fixture(scope="session")
def hub_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HF_HOME of both clients: what one downloads, the other finds."""
    return tmp_path_factory.mktemp("hub-home")


@pytest.fixture(scope="session")
def online(hub: FakeHub, hub_home: Path) -> Iterator[HubClient]:
    client = HubClient(hub.url, hub_home)
    yield client
    client.close()


@pytest.fixture(scope="session")
def offline(hub: FakeHub, hub_home: Path) -> Iterator[HubClient]:
    client = HubClient(hub.url, hub_home, offline=True)
    yield client
    client.close()


def _prepare(environment: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        del os.environ[name]  # what the tester's own account set
    os.environ.update(environment)
    import time

    import torch

    from .thin import narrow  # not before: it imports the client

    narrow(pytest.MonkeyPatch())
    torch.set_num_threads(1)
    time.sleep = lambda seconds: None  # the client waits before it tries again; a test need not


def _as(token: str) -> None:
    os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = token


def _count(counter: Any) -> float:
    import numpy as np

    picture = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return float(counter.count(picture).count)


def _load(source: str | Path, token: str, options: dict[str, Any]) -> Loaded:
    from csrnet_hub import CrowdCounter, CSRNet

    _as(token)
    model = CSRNet.from_pretrained(source, **options)
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + value.numpy().tobytes())
    config = json.loads(json.dumps(model.config()))
    return Loaded(config, digest.hexdigest(), _count(CrowdCounter(model, "cpu")))


def _load_in_app(source: str | Path) -> float:
    import app

    _as("")
    counts: list[float] = []

    def build_app(counter: Any, cards: list[str]) -> Any:
        counts.append(_count(counter))
        raise OSError("enough seen")

    app.build_app = build_app  # type: ignore[assignment]
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        app.main(["--model", str(source)])
    return counts[0]


def _push(arguments: list[str], token: str) -> Outcome:
    from train.push import main

    _as(token)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return Outcome(code, out.getvalue(), err.getvalue())


def _push_to_hub(folder: Path, repo: str, options: dict[str, Any]) -> list[str]:
    from csrnet_hub import CSRNet

    _as("hf_writer")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        CSRNet.from_pretrained(folder).push_to_hub(repo, **options)
    return [str(one.message) for one in caught if one.category is UserWarning]
