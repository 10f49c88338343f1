"""What CrowdCounter promises of sizes, tiles, memory and devices."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import pickle
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from csrnet_hub import (
    CrowdCounter,
    CSRNet,
    ImageError,
    ModelError,
    counting,
    devices,
    load_image,
    torch_engine,
)
from csrnet_hub.bands import density_bands
from csrnet_hub.devices import name_device, pick_device, pick_dtype
from csrnet_hub.tiles import Mapped, Progress, plan_tiles, windows
from csrnet_hub.torch_engine import CPU_BAND, CPU_WIDEST, GPU_BAND, TorchEngine, to_input

from .thin import narrow

pytestmark = pytest.mark.filterwarnings("ignore:this CPU is slower in")  # than in float32


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def counter(thin_model: CSRNet) -> CrowdCounter:
    return CrowdCounter(thin_model, "cpu", "float32")


def test_a_layer_about_a_convolution_is_refused(thin_model: CSRNet) -> None:
    """Such as an adapter: in bands it would see no rows beyond its own."""
    adapted = copy.deepcopy(thin_model)
    adapted.backend[2] = torch.nn.Sequential(adapted.backend[2])
    with pytest.raises(TypeError, match="a Sequential layer cannot be counted with"):
        CrowdCounter(adapted, "cpu", "float32").count(noise(64, 96))


def test_the_count_is_the_sum_of_the_map_in_heads(model: CSRNet) -> None:
    counter = CrowdCounter(model, "cpu", "float32")
    picture = noise(64, 96)
    with torch.no_grad():
        raw = model(to_input(picture, model, torch.device("cpu")))
    result = counter.count(picture)
    assert result.count == pytest.approx(raw.sum().item() / model.density_scale, rel=1e-5)
    assert result.count == pytest.approx(float(result.density.sum()), rel=1e-6)
    assert (result.width, result.height) == (96, 64)
    assert result.seconds > 0
    assert (result.device, result.dtype, result.tiles) == ("cpu", "float32", 1)


def test_input_is_normalised_with_the_models_mean_and_std() -> None:
    model = CSRNet(mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.25))
    x = to_input(np.full((8, 8, 3), 255, dtype=np.uint8), model, torch.device("cpu"))
    assert x[0, :, 0, 0].tolist() == pytest.approx([5.0, 3.0, 2.8])


def test_a_programs_autocast_changes_no_count(counter: CrowdCounter) -> None:
    picture = noise(40, 56)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = counter.count(picture)
    assert np.array_equal(found.density, counter.count(picture).density)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 9), (8, 8), (9, 17), (90, 130)])
def test_any_size_from_one_pixel_counts(counter: CrowdCounter, size: tuple[int, int]) -> None:
    result = counter.count(noise(*size))
    assert result.density.shape == (-(-size[0] // 8), -(-size[1] // 8))
    assert np.isfinite(result.count)


def test_padding_is_with_the_mean_colour(counter: CrowdCounter, thin_model: CSRNet) -> None:
    mean = np.round(np.array(thin_model.mean) * 255).astype(np.uint8)
    picture = noise(61, 93)
    padded = np.tile(mean, (64, 96, 1))
    padded[:61, :93] = picture
    result = counter.count(picture)
    assert result.count == pytest.approx(counter.count(padded).count, rel=1e-4)


@pytest.mark.parametrize(
    ("variant", "size", "tile"), [("A", (130, 197), 64), ("B", (157, 264), 128)]
)
def test_tiles_give_the_map_of_the_whole_picture(
    thin_model: CSRNet,
    variant: str,
    size: tuple[int, int],
    tile: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrow(monkeypatch)
    net = CSRNet(variant)
    net.load_state_dict(thin_model.state_dict())
    picture = noise(*size)
    whole = CrowdCounter(net, "cpu", "float32", tile=None).count(picture)
    result = CrowdCounter(net, "cpu", "float32", tile=tile).count(picture)
    assert whole.tiles == 1
    assert result.tiles == -(-size[0] // tile) * -(-size[1] // tile)
    assert result.count == pytest.approx(whole.count, rel=1e-4)
    assert np.abs(result.density - whole.density).max() < 1e-4 * np.abs(whole.density).max()


def test_a_narrower_halo_would_change_the_map(thin_model: CSRNet) -> None:
    picture = noise(64, 400)
    whole = CrowdCounter(thin_model, "cpu", "float32", tile=None).count(picture)
    short = CrowdCounter(thin_model, "cpu", "float32", tile=128)
    short.engine.halo = 8  # cells
    difference = np.abs(short.count(picture).density - whole.density).max()
    assert difference > 1e-4 * np.abs(whole.density).max()


def test_no_tile_is_larger_than_asked_and_all_cells_are_covered_once() -> None:
    for rows, columns, tile in [(1250, 1250, 1280), (100, 3, 64), (63, 125, 504)]:
        seen = np.zeros((rows, columns), dtype=int)
        for top, bottom, left, right in plan_tiles(rows, columns, tile):
            assert bottom - top <= tile // 8
            assert right - left <= tile // 8
            seen[top:bottom, left:right] += 1
        assert (seen == 1).all()


@pytest.mark.parametrize(("rows", "columns"), [(100, 3), (63, 125), (1, 1), (40, 77)])
def test_windows_are_of_one_size_and_hold_each_tile_with_its_halo(rows: int, columns: int) -> None:
    sizes = set()
    for (top, bottom, left, right), (y0, y1, x0, x1) in windows(rows, columns, 160, 7):
        assert 0 <= y0 <= max(top - 7, 0)
        assert min(bottom + 7, rows) <= y1 <= rows
        assert 0 <= x0 <= max(left - 7, 0)
        assert min(right + 7, columns) <= x1 <= columns
        sizes.add((y1 - y0, x1 - x0))
    assert len(sizes) == 1


@pytest.mark.parametrize("variant", ["A", "B", "C", "D"])
@pytest.mark.parametrize("high", [8, 40, 104])
def test_bands_give_the_map_of_the_whole_picture(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch, variant: str, high: int
) -> None:
    narrow(monkeypatch)
    net = CSRNet(variant)
    net.load_state_dict(thin_model.state_dict())
    x = torch.randn(1, 3, 200, 64, generator=torch.Generator().manual_seed(0))
    tops = range(0, 200, high)
    with torch.inference_mode():
        bands = [(x[:, :, top : top + high], top + high >= 200) for top in tops]
        ours, whole = torch.cat(list(density_bands(net, bands)), dim=2), net(x)
    assert ours.shape == whole.shape
    assert (ours - whole).abs().max() < 1e-4 * whole.abs().max()


def test_a_large_picture_goes_through_in_bands_with_the_same_map(
    model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, counter = noise(317, 397), CrowdCounter(model, "cpu", "float32")
    whole = counter.count(picture)
    monkeypatch.setattr("csrnet_hub.torch_engine.CPU_BAND", 2**14)
    monkeypatch.setattr("csrnet_hub.torch_engine.CPU_WHOLE", 0)
    monkeypatch.setattr("csrnet_hub.torch_engine.CPU_WIDEST", 300)  # two columns of tiles too
    pieces = counter.count(picture)
    assert (whole.tiles, pieces.tiles > 8) == (1, True)
    assert np.abs(pieces.density - whole.density).max() < 1e-4 * np.abs(whole.density).max()


@pytest.mark.parametrize("size", [(6000, 5000), (4, 200_000), (200_000, 4)])
def test_a_large_picture_never_puts_more_than_a_band_through_the_network(
    counter: CrowdCounter, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    seen = []

    def record(model, bands, dtype):  # type: ignore[no-untyped-def]
        for x, _ in bands:
            seen.append((x.shape[2] * x.shape[3], x.shape[3]))
            yield torch.zeros(1, 1, x.shape[2] // 8, x.shape[3] // 8)

    monkeypatch.setattr("csrnet_hub.torch_engine.density_bands", record)
    monkeypatch.setattr(counter, "max_pixels", None)
    result = counter.count(np.zeros((*size, 3), dtype=np.uint8))
    assert result.tiles == len(seen) > 1
    assert max(pixels for pixels, _ in seen) <= CPU_BAND
    assert max(width for _, width in seen) <= CPU_WIDEST + 16 * counter.engine.halo


def test_progress_is_told_after_each_tile(model: CSRNet) -> None:
    counter = CrowdCounter(model, "cpu", tile=64)
    told: list[tuple[int, int]] = []
    counter.count(noise(64, 200), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


class Full(TorchEngine):
    """On a GPU, for which the device meta stands, that has no memory at all."""

    def __init__(self, model: CSRNet, *how: str | int) -> None:
        super().__init__(copy.deepcopy(model), "cpu", *how)  # type: ignore[arg-type]
        self.device = torch.device("meta")
        self.tried: list = []

    def _in_tiles(self, pixels, band, model, device, kind, *rest):  # type: ignore[no-untyped-def]
        self.tried.append((device.type, band, kind))
        if device.type != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super()._in_tiles(pixels, band, model, device, kind, *rest)


def test_out_of_gpu_memory_means_smaller_bands_then_the_cpu(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = CrowdCounter(thin_model, "cpu")
    engine = counter.engine = Full(thin_model, "auto", "auto")
    engine.kind = torch.float16  # a GPU's; a CPU would emulate it
    weights = [own.data_ptr() for own in engine.model.parameters()]
    monkeypatch.setattr(CSRNet, "to", None)  # other threads may be using it
    with pytest.warns(UserWarning, match="out of GPU memory"):
        result = counter.count(np.zeros((640, 1200, 3), dtype=np.uint8))
    assert [own.data_ptr() for own in engine.model.parameters()] == weights
    bands = [640 * 1200 // 4**times for times in range(2)]
    natural = pick_dtype("auto", torch.device("cpu"))
    expected = [*(("meta", band, torch.float16) for band in bands), ("cpu", CPU_BAND, natural)]
    assert engine.tried == expected
    assert bands[0] < GPU_BAND
    assert (result.device, result.dtype) == ("cpu", str(natural).removeprefix("torch."))


def test_a_picture_that_fits_no_gpu_keeps_the_float32_that_was_asked_for(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_engine, "pick_dtype", lambda *_: torch.bfloat16)
    engine = Full(thin_model, "auto", "auto")
    engine.kind = torch.float32
    with pytest.warns(UserWarning, match="counting this picture on the CPU"):
        assert engine.density(np.zeros((64, 64, 3), np.uint8), None).dtype == "float32"


def test_a_tile_of_ones_own_that_fits_no_gpu_is_not_tried_again_there(
    thin_model: CSRNet,
) -> None:
    """Its size would be the same."""
    engine = Full(thin_model, "float32", 512)
    with pytest.warns(UserWarning, match="counting this picture on the CPU"):
        engine.density(np.zeros((640, 1200, 3), np.uint8), None)
    assert [device for device, *_ in engine.tried] == ["meta", "cpu"]


def test_bfloat16_counts_within_one_per_cent(model: CSRNet) -> None:
    picture = noise(64, 64)
    exact = CrowdCounter(model, "cpu", "float32").count(picture)
    rough = CrowdCounter(model, "cpu", "bfloat16").count(picture)
    assert rough.dtype == "bfloat16"
    assert rough.density.dtype == np.float32
    assert rough.count == pytest.approx(exact.count, rel=0.01)


def test_the_last_convolution_is_never_rounded(thin_model: CSRNet) -> None:
    x = to_input(noise(64, 64), thin_model, torch.device("cpu"))
    with torch.inference_mode():
        (rough,) = density_bands(thin_model, [(x, True)], torch.bfloat16)
        (exact,) = density_bands(thin_model, [(x, True)])
    assert rough.dtype == torch.float32
    assert (rough != rough.bfloat16()).float().mean() > 0.9
    assert (rough != exact).float().mean() > 0.9  # all before it are


WEIGHTS, VALUES = (1e7, 1e-7), (1e3, 1e2, 1e-5)  # of layers: which of them become too large


def overflowing(model: CSRNet, factors: tuple[float, ...] = WEIGHTS) -> CSRNet:
    """The same map by way of numbers beyond 65504."""
    large, total = copy.deepcopy(model), 1.0
    with torch.no_grad():
        for layer, factor in zip(large.backend[::2], factors):
            total *= factor
            layer.weight.mul_(factor)
            layer.bias.mul_(total)
    return large


def test_a_map_that_is_not_finite_is_no_count(model: CSRNet) -> None:
    broken = overflowing(model, (1e30, 1e30))
    with pytest.raises(ModelError, match="is not finite"):
        CrowdCounter(broken, "cpu", "float32").count(noise(64, 64))
    (found,) = CrowdCounter(broken, "cpu", "float32").count_many([noise(64, 64)])
    assert "is not finite" in str(found)


def test_a_network_that_overflows_in_float16_goes_on_in_float32(model: CSRNet) -> None:
    picture = noise(64, 64)
    counter = CrowdCounter(copy.deepcopy(model), "cpu", "float16")
    assert counter.count(picture).dtype == "float16"
    exact = CrowdCounter(copy.deepcopy(model), "cpu", "float32").count(picture)
    assert counter.count(picture).count == pytest.approx(exact.count, rel=0.005)

    large = overflowing(model)
    counter = CrowdCounter(large, "cpu", "float16")
    with pytest.warns(UserWarning, match="overflows in float16"):
        found = counter.count(picture)
    assert found.dtype == counter.count(picture).dtype == "float32"
    assert found.count == pytest.approx(exact.count, rel=1e-4)

    class Raced(TorchEngine):
        def _on_device(self, *picture):  # type: ignore[no-untyped-def]
            found = super()._on_device(*picture)
            self.kind = torch.float32  # another thread has seen the overflow meanwhile
            return found

    counter.engine = Raced(large, "cpu", "float16", "auto")
    with pytest.warns(UserWarning, match="overflows in float16"):
        assert counter.count(picture).count == pytest.approx(exact.count, rel=1e-4)


def test_threads_share_a_counter_and_processes_can_be_given_one(thin_model: CSRNet) -> None:
    counter = CrowdCounter(thin_model, "cpu", "float32")
    pictures = [noise(100 + 8 * i, 90) for i in range(8)]
    alone = [counter.count(picture).count for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = [result.count for result in pool.map(counter.count, pictures)]
    assert together == pytest.approx(alone, rel=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what the next Python cannot copy any more
        for copied in (copy.deepcopy(counter), pickle.loads(pickle.dumps(counter))):
            assert copied.count(pictures[0]).count == pytest.approx(alone[0], rel=1e-5)


@pytest.mark.usefixtures("thin")
def test_a_model_that_was_loaded_or_counted_with_in_inference_mode_can_be_used_without(
    thin_folder: Path,
) -> None:
    with torch.inference_mode():
        model = CSRNet.from_pretrained(thin_folder)
        counter = CrowdCounter(model, "cpu", "float32")
        inside = counter.count(noise(64, 64)).count
    assert counter.count(noise(64, 64)).count == inside
    mine = CSRNet.from_pretrained(thin_folder)
    with torch.inference_mode():
        CrowdCounter(mine, "cpu", "float32")
    for one in (model, mine):
        one.train()(torch.ones(1, 3, 64, 64)).sum().backward()


def test_the_precision_of_a_gpu_is_the_one_that_keeps_the_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = torch.device("cuda")
    for capability, kind in (((9, 0), torch.float16), ((6, 1), torch.float32)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, own=capability: own)
        assert pick_dtype("auto", gpu) is kind
        assert pick_dtype("bfloat16", gpu) is torch.bfloat16


@pytest.mark.parametrize(
    ("amx", "avx512", "intel", "kind"),
    [
        (True, True, True, torch.bfloat16),
        (False, True, False, torch.bfloat16),
        (False, True, True, torch.float32),
        (False, False, False, torch.float32),
    ],
)
def test_a_cpu_counts_in_bfloat16_only_where_that_is_quicker(
    amx: bool, avx512: bool, intel: bool, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(devices, "_of_intel", lambda: intel)
    assert pick_dtype("auto", torch.device("cpu")) is kind
    assert pick_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16


@pytest.mark.parametrize(
    "bad",
    [
        {"device": "nonsense"},
        {"device": None},
        {"dtype": "int8"},
        {"tile": 3},
        {"tile": "big"},
        {"tile": True},
        {"engine": "tensorrt"},
    ],
)
def test_an_option_that_cannot_be_is_refused(model: CSRNet, bad: dict) -> None:
    with pytest.raises(ValueError, match=r"device|dtype|tile|engine"):
        CrowdCounter(model, **bad)


@pytest.mark.parametrize(
    ("told", "name"),
    [("vendor_id\t: X\nmodel name\t: Intel Xeon \n" * 2, "Intel Xeon"), ("", "a CPU (arm64)")],
)
def test_a_cpu_is_called_by_its_model_and_cores(
    told: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_cpuinfo", lambda: told)
    monkeypatch.setattr(devices.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(devices.os, "cpu_count", lambda: 2)
    assert name_device(torch.device("cpu")) == f"{name} with 2 cores"
    assert name_device(torch.device("mps"), 4) == "4 x MPS"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_a_sentence(model: CSRNet) -> None:
    with pytest.raises(ValueError, match="no CUDA GPU"):
        CrowdCounter(model, "cuda")


def test_a_gpu_that_does_not_compute_leaves_the_cpu_or_is_a_sentence(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_kernels(*size: int, device: torch.device) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nCUDA kernel errors might be")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "ones", without_kernels)
    with pytest.warns(UserWarning, match="cuda is present but unusable .*no kernel.*using the CPU"):
        assert CrowdCounter(thin_model).engine.device.type == "cpu"
    with pytest.raises(ValueError, match=r"cuda is present but unusable .*available\); use cpu"):
        CrowdCounter(thin_model, "cuda")
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")  # where it may not be asked
    assert pick_device("auto").type == "cuda"


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "unable to find an engine",
        "CUDA out of memory",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    ],
)
def test_on_a_gpu_a_convolution_and_its_relu_are_one_pass(
    model: CSRNet, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def fused(x, weight, bias, stride, padding, dilation, groups):  # type: ignore[no-untyped-def]
        seen.append((weight.shape, dilation))
        if broken:
            raise RuntimeError(broken)
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups).relu()

    x = torch.randn(1, 3, 64, 48)
    bands = [(x[:, :, :40], False), (x[:, :, 40:], True)]
    monkeypatch.setattr("csrnet_hub.bands._refused", set())
    with torch.inference_mode():
        plain = torch.cat(list(density_bands(model, bands, torch.bfloat16)), dim=2)
        monkeypatch.setattr("csrnet_hub.bands._has_cudnn", lambda weight: True)
        monkeypatch.setattr(torch, "cudnn_convolution_relu", fused)
        if "memory" in broken or "ALLOCATION" in broken:
            with pytest.raises(RuntimeError, match=broken):
                list(density_bands(model, bands, torch.bfloat16))
            return
        one = torch.cat(list(density_bands(model, bands, torch.bfloat16)), dim=2)
        tried = len(seen)
        list(density_bands(model, bands, torch.float32))
        assert len(seen) == tried  # in float32 torch's own rounds once too
    kinds = len(set(seen))
    assert tried == kinds if broken else tried > kinds  # what is not to be had is asked for once
    assert not any(len(shape) != 4 or shape[2] == 1 for shape, _ in seen)  # not the output layer
    assert torch.allclose(one, plain, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("factors", [WEIGHTS, VALUES])
@pytest.mark.parametrize("lost", [False, True])
def test_an_overflow_shows_though_a_relu_in_the_same_pass_loses_it(
    model: CSRNet, lost: bool, factors: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fused(x, weight, bias, stride, padding, dilation, groups):  # type: ignore[no-untyped-def]
        y = torch.conv2d(x, weight, bias, stride, padding, dilation, groups).relu()
        return y.nan_to_num(nan=0.0, posinf=torch.inf) if lost else y

    monkeypatch.setattr("csrnet_hub.bands._has_cudnn", lambda weight: True)
    monkeypatch.setattr(torch, "cudnn_convolution_relu", fused)
    picture, exact = noise(64, 64), CrowdCounter(copy.deepcopy(model), "cpu", "float32")
    counter = CrowdCounter(copy.deepcopy(model), "cpu", "float16")
    found = counter.count(picture)
    assert found.dtype == "float16"
    assert found.count == pytest.approx(exact.count(picture).count, rel=0.005)
    counter = CrowdCounter(overflowing(model, factors), "cpu", "float16")
    with pytest.warns(UserWarning, match="overflows in float16"):
        found = counter.count(picture)
    assert found.count == pytest.approx(exact.count(picture).count, rel=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-3), ("float16", 0.005)])
def test_a_gpu_gives_the_count_of_the_cpu(model: CSRNet, dtype: str, apart: float) -> None:
    picture = noise(200, 300)
    cpu = CrowdCounter(copy.deepcopy(model), "cpu", "float32").count(picture)
    gpu = CrowdCounter(copy.deepcopy(model), "cuda", dtype).count(picture)
    assert gpu.count == pytest.approx(cpu.count, rel=apart)
    for factors in (WEIGHTS, VALUES):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "this network overflows")
            large = CrowdCounter(overflowing(model, factors), "cuda", dtype).count(picture)
        assert large.dtype == "float32"
        assert large.count == pytest.approx(cpu.count, rel=1e-3)


@pytest.mark.parametrize("ahead", [None, 0, 3])
def test_many_pictures_are_counted_in_turn_and_bad_ones_reported_in_their_place(
    counter: CrowdCounter, ahead: int | None
) -> None:
    pictures = [noise(24 + 8 * k, 40) for k in range(6)]
    found = list(counter.count_many([*pictures[:3], b"no picture", *pictures[3:]], ahead))
    error = found.pop(3)
    assert isinstance(error, ImageError)
    assert error.__traceback__ is error.__cause__ is None  # they would hold the picture's pixels
    for one, picture in zip(found, pictures, strict=True):
        assert not isinstance(one, ImageError)
        assert np.array_equal(one.density, counter.count(picture).density)


@pytest.mark.parametrize("ahead", [0, 2])
def test_no_more_pictures_are_read_ahead_than_asked(counter: CrowdCounter, ahead: int) -> None:
    taken: list[int] = []

    def pictures() -> Iterator[np.ndarray]:
        for number in range(8):
            taken.append(number)
            yield noise(16, 16)

    for counted, _ in enumerate(counter.count_many(pictures(), ahead), start=1):
        assert len(taken) <= counted + ahead
    assert len(taken) == 8


@pytest.mark.parametrize("ahead", [0, 3])
def test_a_source_that_goes_on_from_its_picture_is_counted_as_it_was_at_each(
    counter: CrowdCounter, tmp_path: Path, ahead: int
) -> None:
    """A camera's buffer that is filled anew, a moving picture that is sought on, one that ends."""
    frames = [noise(24 + k, 40)[:24] for k in range(6)]
    counts = [counter.count(frame).count for frame in frames]
    assert len(set(counts)) == 6

    def buffer() -> Iterator[np.ndarray]:
        shared = np.empty_like(frames[0])
        for frame in frames:
            shared[:] = frame
            yield shared
        raise ConnectionError("the camera is gone")

    first, *others = map(Image.fromarray, frames)
    first.save(tmp_path / "moving.tiff", save_all=True, append_images=others)
    with Image.open(tmp_path / "moving.tiff") as moving:
        for source in (ImageSequence.Iterator(moving), buffer()):
            found = []
            with contextlib.suppress(ConnectionError):
                for result in counter.count_many(source, ahead):
                    assert not isinstance(result, ImageError)
                    found.append(result.count)
            assert found == pytest.approx(counts)


def test_a_network_that_fails_on_one_picture_counts_the_next(
    model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = CrowdCounter(model, "cpu", "float32")
    density = counter.engine.density

    def fails(pixels: np.ndarray, progress: Progress | None) -> Mapped:
        if pixels.shape[0] == 32:
            raise RuntimeError("no more memory")
        return density(pixels, progress)

    monkeypatch.setattr(counter.engine, "density", fails)
    bad, good = counter.count_many([noise(32, 32), noise(24, 24)])
    assert isinstance(bad, ImageError)
    assert "could not be counted: no more memory" in str(bad)
    assert not isinstance(good, ImageError)


def test_a_counter_from_a_folder_has_its_name_and_is_as_it_was_asked_for(
    thin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch)
    options = {"tile": 64, "max_pixels": 900, "scale": 0.5, "dtype": "float32"}
    for name in (thin_folder, f"{thin_folder}/"):
        counter = CrowdCounter.from_pretrained(name, device="cpu", **options)
        assert counter.name == "small-model"
    assert (counter.engine.tile, counter.max_pixels, counter.scale) == (64, 900, 0.5)
    with pytest.raises(ImageError):
        counter.count(noise(31, 30))


def test_the_seconds_of_a_count_hold_those_of_reading(
    counter: CrowdCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(image: np.ndarray, **_: object) -> np.ndarray:
        time.sleep(0.05)
        return image

    monkeypatch.setattr(counting, "load_image", slow)
    assert counter.count(noise(8, 8)).seconds > 0.05


@pytest.mark.parametrize("limit", ["1000", -1, 0, True, 1e6])
def test_a_pixel_limit_that_is_none_is_not_the_pictures_fault(model: CSRNet, limit: object) -> None:
    with pytest.raises(ValueError, match="max_pixels must be None or a whole number from 1"):
        CrowdCounter(model, "cpu", max_pixels=limit)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_pixels must be"):
        load_image(noise(20, 20), max_pixels=limit)  # type: ignore[arg-type]


def test_what_is_no_list_of_pictures_is_not_counted_piece_by_piece(model: CSRNet) -> None:
    counter = CrowdCounter(model, "cpu")
    pixels = torch.zeros(3, 24, 24)
    for one in ("photo.jpg", Path("photo.jpg"), b"bytes", noise(24, 24), pixels, io.BytesIO()):
        with pytest.raises(TypeError, match="count_many takes a list of pictures"):
            counter.count_many(one)  # type: ignore[arg-type]
    grey = np.zeros((3, 24, 24))
    several = (np.stack([noise(24, 24)] * 3), grey, np.array(["a"] * 3), torch.zeros(3, 3, 24, 24))
    for many in several:
        assert len(list(counter.count_many(many))) == 3  # type: ignore[arg-type]


def test_numbers_may_be_numpys(model: CSRNet) -> None:
    tiled = CrowdCounter(model, "cpu", tile=np.int64(64), max_pixels=np.int64(900))
    assert (
        tiled.count(noise(30, 30)).count
        == CrowdCounter(model, "cpu", tile=64).count(noise(30, 30)).count
    )
    sized = CSRNet(min_side=np.int64(384), working_pixels=np.int32(2**20))
    assert json.dumps(sized.config())
    assert (type(sized.min_side), sized.min_side) == (int, 384)


def test_fewer_than_no_pictures_cannot_be_read_ahead(counter: CrowdCounter) -> None:
    with pytest.raises(ValueError, match="ahead must be None or a number of pictures from 0"):
        counter.count_many([noise(8, 8)], ahead=-1)


def test_the_name_of_a_model_is_no_model() -> None:
    with pytest.raises(TypeError, match=r"CrowdCounter\.from_pretrained takes its name"):
        CrowdCounter("org/name")  # type: ignore[arg-type]


def test_a_network_with_a_forward_of_its_own_is_refused_rather_than_counted_without_it() -> None:
    class Doubled(CSRNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    with pytest.raises(TypeError, match="a plain CSRNet"):
        CrowdCounter(Doubled())


def test_results_can_be_looked_up_in_a_list_and_a_set(model: CSRNet) -> None:
    counter = CrowdCounter(model, "cpu")
    one, same = counter.count(noise(24, 24)), counter.count(noise(24, 24))
    assert one in [same, one]
    assert len({one, same, one}) == 2


def test_memory_is_given_back_after_every_few_pictures(
    counter: CrowdCounter, scene: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    trims: list[int] = []
    monkeypatch.setattr("csrnet_hub.torch_engine.TRIM_EVERY", 3)
    monkeypatch.setattr("csrnet_hub.torch_engine.trim_memory", lambda: trims.append(1))
    engine = TorchEngine(counter.model, "cpu", "float32", "auto")
    after = []
    for _ in range(6):
        engine.density(scene, None)
        after.append(len(trims))
    assert after == [0, 0, 1, 1, 1, 2]
