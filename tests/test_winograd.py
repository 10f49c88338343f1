"""What the fast convolutions promise: the results of torch's own."""

from __future__ import annotations

import copy
import platform

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, max_pool2d

from csrnet_hub import CrowdCounter, CSRNet, winograd


@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (32, 32), (33, 18)])
def test_values_and_gradients_are_those_of_torch(dilation: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, *size, requires_grad=True)
    weight = torch.randn(6, 5, 3, 3, requires_grad=True)
    bias = torch.randn(6, requires_grad=True)
    expected = conv2d(x, weight, bias, padding=dilation, dilation=dilation)
    found = winograd.conv2d(x, weight, bias, dilation)
    grad = torch.randn_like(expected)
    pairs = [(found, expected)]
    pairs += zip(
        torch.autograd.grad(found, (x, weight, bias), grad),
        torch.autograd.grad(expected, (x, weight, bias), grad),
    )
    for own, torchs in pairs:
        assert own.shape == torchs.shape
        assert (own - torchs).abs().max() < 2e-5 * torchs.abs().max()


def test_channels_last_and_strided_inputs_give_the_same() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 8, 9, 20), torch.randn(4, 8, 3, 3), torch.zeros(4)
    plain = winograd.conv2d(x, weight, bias, 2)
    assert torch.equal(
        winograd.conv2d(x.to(memory_format=torch.channels_last), weight, bias, 2), plain
    )
    wide = torch.randn(2, 8, 9, 40)
    wide[..., ::2] = x
    assert torch.equal(winograd.conv2d(wide[..., ::2], weight, bias, 2), plain)


@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("size", [(9, 9), (40, 13), (25, 300), (130, 33)])
@pytest.mark.parametrize("strip", [1, 30, winograd.STRIP])
def test_inference_in_strips_gives_the_values_of_torch(
    dilation: int, size: tuple[int, int], strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "STRIP", strip)
    monkeypatch.setattr(winograd, "NUMBERS", 0)
    monkeypatch.setattr(winograd, "FEWEST", 0)
    torch.manual_seed(0)
    x = torch.randn(1, 5, *size)
    weight, bias = torch.randn(7, 5, 3, 3), torch.randn(7)
    for padding in (0, dilation):
        sides = (padding, dilation)
        expected = conv2d(x, weight, bias, padding=sides, dilation=dilation)
        for parts in (
            [x],
            x.contiguous(memory_format=torch.channels_last).split([2, 5, size[0] - 7], 2),
        ):
            found = winograd.infer(parts, weight, bias, dilation, padding)
            assert found.shape == expected.shape
            assert (found - expected).abs().max() < 2e-5 * expected.abs().max()
            found = winograd.infer(parts, weight, bias, dilation, padding, relu=True)
            assert (found - expected.relu()).abs().max() < 2e-5 * expected.abs().max()
            found = winograd.infer(parts, weight, bias, dilation, padding, relu_first=True)
            after = conv2d(x.relu(), weight, bias, padding=sides, dilation=dilation)
            assert (found - after).abs().max() < 2e-5 * after.abs().max()


@pytest.mark.parametrize("fewest", [0, winograd.FEWEST])
@pytest.mark.parametrize("size", [(2, 2), (10, 14), (24, 130)])
def test_a_pooling_that_follows_and_a_relu_before_are_part_of_it(
    size: tuple[int, int], fewest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "FEWEST", fewest)
    torch.manual_seed(0)
    x, weight, bias = torch.randn(1, 5, *size), torch.randn(7, 5, 3, 3), torch.randn(7)
    expected = max_pool2d(conv2d(x, weight, bias, padding=1), 2)
    for relu in (False, True):
        found = winograd.infer([x], weight, bias, 1, 1, relu, pool=True)
        assert found.shape == expected.shape
        assert (found - (expected.relu() if relu else expected)).abs().max() < 1e-4
    found = winograd.infer([x], weight, bias, 1, 1, pool=True, relu_first=True)
    assert (found - max_pool2d(conv2d(x.relu(), weight, bias, padding=1), 2)).abs().max() < 1e-4


@pytest.mark.parametrize("fewest", [0, 10_000])
@pytest.mark.parametrize("pool", [False, True])
def test_maps_in_bfloat16_stay_in_it_and_err_by_little(
    pool: bool, fewest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "FEWEST", fewest)
    torch.manual_seed(0)
    x, weight, bias = torch.randn(1, 16, 40, 44), torch.randn(24, 16, 3, 3) / 12, torch.randn(24)
    expected = conv2d(x.bfloat16().float(), weight, bias, padding=1)
    expected = max_pool2d(expected, 2) if pool else expected
    found = winograd.infer([x.bfloat16()], weight, bias, 1, 1, pool=pool)
    assert found.dtype == torch.bfloat16
    error = found.float() - expected
    assert 0 < error.norm() < 0.04 * expected.norm()
    assert error.mean().abs() < 0.003 * expected.abs().mean()


def on_processor(patch: pytest.MonkeyPatch, quick: bool, amx: bool) -> None:
    """As on x86 with such instructions for bfloat16."""
    patch.setattr(platform, "machine", lambda: "x86_64")
    patch.setattr(winograd, "fast_bfloat16", lambda device: quick)
    patch.setattr(winograd, "has_amx", lambda: amx)


def noted(patch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with each of Winograd's convolutions from now on."""
    own, calls = winograd.infer, []
    patch.setattr(winograd, "infer", lambda *a: calls.append(1) or own(*a))
    return calls


def test_in_bfloat16_they_pay_where_products_are_quick_in_vectors_alone(
    model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 56, 3), dtype=np.uint8)
    calls = noted(monkeypatch)
    counter = CrowdCounter(model, "cpu", "float32")
    counter.engine.kind = torch.bfloat16  # without the warning where that is slow
    for quick, amx, times in ((True, False, 12), (True, True, 0), (False, False, 0)):
        calls.clear()
        on_processor(monkeypatch, quick, amx)
        counter.count(picture)
        assert len(calls) == times


def test_a_picture_is_counted_with_them_where_they_pay(
    model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (210, 170, 3), dtype=np.uint8)
    calls = noted(monkeypatch)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    found = CrowdCounter(model, "cpu", "float32").count(picture)
    assert len(calls) == 15  # of 17: all but the first and the last
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    expected = CrowdCounter(model, "cpu", "float32").count(picture)
    assert len(calls) == 15
    assert np.abs(found.density - expected.density).max() < 1e-4 * np.abs(expected.density).max()
    assert found.count == pytest.approx(expected.count, rel=1e-4)


def test_the_network_trains_with_them_and_its_gradients_are_the_same(
    model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy.deepcopy(model).train()
    torch.manual_seed(1)
    x = torch.randn(1, 3, 64, 72)
    calls = []
    own = winograd.conv2d
    monkeypatch.setattr(winograd, "conv2d", lambda *a: calls.append(1) or own(*a))

    def gradients() -> list[torch.Tensor]:
        parameters = [model.frontend[10].weight, model.backend[0].weight, model.output_layer.weight]
        return list(torch.autograd.grad(model(x).square().sum(), parameters))

    fast = gradients()
    assert len(calls) == 14
    monkeypatch.setattr(winograd, "pays", lambda *a: False)
    slow = gradients()
    for one, two in zip(fast, slow):
        # 2e-6, or 0.002 where a ReLU or a pooling decides otherwise between two nearly alike
        assert (one - two).norm() < 0.01 * two.norm()


def test_they_stay_out_of_inference_and_of_low_precision(
    model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(winograd, "conv2d", None)  # not to be called
        assert model(torch.randn(1, 3, 16, 16)).requires_grad
    x, weight = torch.randn(1, 256, 8, 8), model.backend[0].weight
    assert winograd.pays(x, weight)
    assert not winograd.pays(x.bfloat16(), weight.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.pays(x, weight)


def test_gradients_of_gradients_are_refused() -> None:
    x, weight = torch.randn(1, 4, 8, 8, requires_grad=True), torch.randn(4, 4, 3, 3)
    (grad,) = torch.autograd.grad(
        winograd.conv2d(x, weight, torch.zeros(4)).square().sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_they_stay_out_of_what_is_traced(model: CSRNet, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = copy.deepcopy(model).train(), torch.randn(1, 3, 16, 16)
    monkeypatch.setattr(winograd, "conv2d", None)  # not to be called
    assert torch.jit.trace(model, x, check_trace=False)(x).requires_grad
    with pytest.raises(TypeError):
        model(x)
