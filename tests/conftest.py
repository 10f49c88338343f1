"""What several test files share: a small scene, a model with weights that are quick to make."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # no test goes to the network
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):  # they share the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from csrnet_hub import CSRNet

from .hub_client import hub, hub_home, offline, online  # noqa: F401  (fixtures)
from .thin import narrow


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Gradio's folder for uploads, away from the machine's own."""
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def model() -> CSRNet:
    """A CSRNet whose output is far from zero and varies over a picture."""
    return lively()


def lively() -> CSRNet:
    torch.manual_seed(0)
    net = CSRNet(density_scale=10.0)
    with torch.no_grad():
        for layer in [*net.frontend, *net.backend]:
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight)
        net.output_layer.weight.abs_()
    return net.eval()


@pytest.fixture(scope="session")
def thin_model() -> CSRNet:
    """The same with few channels: for what does not hang on the network's size."""
    with pytest.MonkeyPatch.context() as patch:
        narrow(patch)
        return lively()


@pytest.fixture(scope="module")
def thin() -> Iterator[None]:
    """Thin networks in a whole file: what is promised there does not hang on their size."""
    with pytest.MonkeyPatch.context() as patch:
        narrow(patch)
        yield


@pytest.fixture(scope="session")
def thin_folder(thin_model: CSRNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The thin model as a folder."""
    folder = tmp_path_factory.mktemp("models") / "small-model"
    thin_model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_folder(model: CSRNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That model as a folder."""
    folder = tmp_path_factory.mktemp("models") / "small-model"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def scene() -> np.ndarray:
    """A picture (90, 130, 3) uint8 of coloured noise, its sides not divisible by 8."""
    return np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)


@pytest.fixture
def photo(scene: np.ndarray, tmp_path: Path) -> Path:
    """The scene as a PNG file."""
    path = tmp_path / "photo.png"
    Image.fromarray(scene).save(path)
    return path
