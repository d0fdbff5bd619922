"""Quantized weights in the form that each device's INT4 kernel takes, through torchao's tensors.

On xpu and cuda these are torchao's own formats (`plain_int32`, tile-packed); on the CPU its tensor stands in
a prototype module of torchao 0.18. The values are ours: torchao's own quantizer has another grid.
"""

from importlib import import_module
from typing import Any

import torch
from torch.nn import functional

from xpubench.errors import RunFailure, UserError
from xpubench.weights.grid import MIDDLE, Int4Weight, Int8Weight

INSTALL = "install torchao: pip install torchao==0.18.0"
CLASSES = {
    "cpu": ("torchao.prototype.quantization.int4.int4_opaque_tensor", "Int4OpaqueTensor"),
    "xpu": ("torchao.quantization", "Int4PlainInt32Tensor"),
    "cuda": ("torchao.quantization", "Int4TilePackedTo4dTensor"),
}
# The kernel of the CPU takes blocks of 16 rows.
CPU_ROWS = 16
CUDA_ROWS, CUDA_COLUMNS, CUDA_INNER_TILES = 8, 1024, 8
# Up to so many rows of activations the INT8 kernel of the CPU is faster than a product in 16 bits.
INT8_ROWS = 32
# Of the output head that are expanded to 16 bits at a time.
EXPANDED_ROWS = 16_384


def tensor_class(device: str) -> Any:
    """The class of torchao's INT4 tensor on that device; UserError where it is not installed."""
    module, name = CLASSES[device]
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"INT4 on {device} needs {name} of torchao; {INSTALL}") from error


def kernel_takes(shape: tuple[int, int], device: str) -> bool:
    """Whether the device's kernel takes a weight of that shape; those of xpu and cuda pad it."""
    return device != "cpu" or shape[0] % CPU_ROWS == 0


def int4_parameter(weight: Int4Weight, device: str, dtype: torch.dtype) -> torch.nn.Parameter:
    """The weight as a parameter of a linear layer on the device; `dtype` is that of the activations."""
    cls, block = tensor_class(device), [1, weight.group_size]
    scales = weight.scales.to(device, dtype)
    codes = weight.packed.to(device)
    zeros = torch.full_like(scales, MIDDLE) if weight.zeros is None else weight.zeros.to(device, dtype)
    if device == "xpu":
        packed = torch.ops.aten._convert_weight_to_int4pack(codes.view(torch.uint8), 8)
        parts = (packed, scales.t().contiguous(), zeros.t().contiguous().to(torch.int8))
        return _frozen(cls(*parts, block, torch.Size(weight.shape)))
    unpacked = Int4Weight(packed=codes, scales=scales, zeros=None).codes()
    if device == "cuda":
        unpacked, scales, zeros = _padded(unpacked, scales.bfloat16(), zeros.bfloat16(), weight.group_size)
        pairs = unpacked[:, ::2] << 4 | unpacked[:, 1::2]
        packed = torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), CUDA_INNER_TILES)
    else:
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(unpacked.int(), 1)
    # These kernels compute (u - 8) * scale + offset.
    offsets = (MIDDLE - zeros) * scales
    scales_and_offsets = torch.stack((scales, offsets), dim=-1).transpose(0, 1).contiguous()
    return _frozen(cls(packed, scales_and_offsets, block, torch.Size(weight.shape)))


def int8_parameters(weight: Int8Weight, device: str, dtype: torch.dtype) -> Int8Weight:
    """The weight as parameters on the device, which table and head can share."""
    # Copied: the CPU's INT8 kernel crashes on memory that is not aligned, as a mapped file's is.
    values8, scales = weight.values8.to(device, copy=True), weight.scales.to(device, dtype)
    return Int8Weight(values8=_frozen(values8), scales=_frozen(scales))


def stored_bytes(parameter: torch.Tensor) -> int:
    """The bytes that a parameter really takes; one of torchao's says those of the values it stands for."""
    parts = getattr(type(parameter), "tensor_data_names", None)
    if parts is None:
        return int(parameter.nbytes)
    return sum(stored_bytes(getattr(parameter, name)) for name in parts)


class Int8Embedding(torch.nn.Module):  # type: ignore[misc]
    """A token table in INT8: looks up rows and expands them to the model's dtype."""

    def __init__(self, weight: Int8Weight) -> None:
        super().__init__()
        self.weight = weight.values8
        self.scales = weight.scales

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Token ids of any shape to vectors of shape (..., hidden size)."""
        scales = self.scales[token_ids]
        return self.weight[token_ids].to(scales.dtype) * scales[..., None]


class Int8Head(torch.nn.Module):  # type: ignore[misc]
    """An output head in INT8 on the CPU. It can share its table with the embedding."""

    def __init__(self, weight: Int8Weight, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = weight.values8
        self.scales = weight.scales
        self.bias = bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states of shape (..., hidden size) to logits of shape (..., vocabulary)."""
        rows = hidden.reshape(-1, hidden.shape[-1]).contiguous()
        if len(rows) <= INT8_ROWS:
            logits = torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scales)
        else:
            parts = [
                functional.linear(rows, part.to(rows.dtype)) for part in self.weight.split(EXPANDED_ROWS)
            ]
            logits = torch.cat(parts, dim=-1) * self.scales
        if self.bias is not None:
            logits = logits + self.bias
        return logits.view(*hidden.shape[:-1], -1)


def _frozen(values: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(values, requires_grad=False)


def _padded(
    codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, group_size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows and columns filled up to what cuda's kernel takes, with weights of zero."""
    rows, columns = -codes.shape[0] % CUDA_ROWS, -codes.shape[1] % CUDA_COLUMNS
    if columns % group_size:
        raise RunFailure("unsupported", f"cuda's INT4 kernel takes no groups of {group_size}")
    more = (0, columns // group_size, 0, rows)
    return (
        functional.pad(codes, (0, columns, 0, rows), value=MIDDLE),
        functional.pad(scales, more, value=1.0),
        functional.pad(zeros, more, value=MIDDLE),
    )
