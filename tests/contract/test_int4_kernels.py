"""The INT4 tensors that torchao's kernels on xpu and cuda are handed, without those devices: what they hold
must give back the weight by the formula that the kernel computes."""

from typing import Any

import pytest
import torch

pytest.importorskip("torchao")

from xpubench.spec import Quantization
from xpubench.weights.int4.grids import quantize_int4
from xpubench.weights.int4.kernels import cuda_parts, tensor_class, xpu_parts

CONVERT = torch.ops.aten._convert_weight_to_int4pack


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the packing operator is called with; it exists on accelerators alone."""
    calls: list[Any] = []

    def convert(pairs: torch.Tensor, tiles: int) -> torch.Tensor:
        assert pairs.dtype == torch.uint8
        assert pairs.is_contiguous()
        calls.append((pairs, tiles))
        return pairs.view(torch.int32)

    monkeypatch.setattr(torch.ops.aten, "_convert_weight_to_int4pack", convert)
    return calls


@pytest.mark.parametrize("grid", ["int4_fullrange", "int4_asym"])
def test_xpu(handed: list[Any], grid: str) -> None:
    recipe = Quantization(weight_dtype=grid)  # type: ignore[arg-type]
    weight = quantize_int4(torch.randn(24, 192), recipe)
    zeros = torch.full_like(weight.scales, 8) if weight.zeros is None else weight.zeros.half()
    qdata, scale, zero_point = xpu_parts(weight.packed, weight.scales, zeros)
    assert (qdata.dtype, qdata.shape) == (torch.int32, (24, 192 // 8))
    assert (scale.dtype, zero_point.dtype, scale.shape) == (torch.float16, torch.int8, (3, 24))
    pairs, tiles = handed[0]
    assert tiles == 8
    # As torchao's own quantizer packs for xpu: the even column low, the odd one high.
    codes = torch.stack((pairs & 15, pairs >> 4), -1).view(24, 3, 64).float()
    values = (codes - zero_point.t()[..., None].float()) * scale.t()[..., None].float()
    assert torch.equal(values.view(24, 192), weight.values())
    assert tensor_class("xpu").tensor_data_names == ["qdata", "scale", "zero_point"]


@pytest.mark.parametrize("grid", ["int4_fullrange", "int4_asym"])
def test_cuda(handed: list[Any], grid: str) -> None:
    recipe = Quantization(weight_dtype=grid, scale_dtype="bfloat16")  # type: ignore[arg-type]
    weight = quantize_int4(torch.randn(20, 192), recipe)
    zeros = torch.full_like(weight.scales, 8) if weight.zeros is None else weight.zeros.bfloat16()
    _, scales_and_offsets = cuda_parts(weight.packed, weight.scales, zeros)
    pairs, tiles = handed[0]
    assert (tiles, pairs.shape) == (8, (24, 1024 // 2))
    assert (scales_and_offsets.dtype, scales_and_offsets.shape) == (torch.bfloat16, (16, 24, 2))
    # As torchao's own quantizer packs for cuda: the even column high, the odd one low.
    codes = torch.stack((pairs >> 4, pairs & 15), -1).view(24, 16, 64).float()
    scales, offsets = scales_and_offsets.transpose(0, 1).float().unbind(-1)
    values = ((codes - 8) * scales[..., None] + offsets[..., None]).view(24, 1024)
    # An offset of an asymmetric grid is rounded to bfloat16.
    tolerance = 0 if grid == "int4_fullrange" else 1e-2
    assert torch.allclose(values[:20, :192], weight.values(), atol=tolerance, rtol=0)
    assert values[20:].eq(0).all()
    assert values[:, 192:].eq(0).all()
    assert tensor_class("cuda").tensor_data_names == ["qdata", "scale_and_zero"]
