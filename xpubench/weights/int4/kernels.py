"""Quantized weights in the form that each device's INT4 kernel takes, through torchao's tensors.

On xpu and cuda these are torchao's own formats (`plain_int32`, tile-packed); the CPU's tensor is in a
prototype module of torchao 0.18. torchao's own quantizer, which has another grid, is not used.
"""

from importlib import import_module
from typing import Any

import torch
from torch.nn import functional

from xpubench.errors import UserError
from xpubench.weights.int4.grids import MIDDLE, Int4Weight, Int8Weight, unpack

Parts = tuple[torch.Tensor, ...]

INSTALL = "install torchao: pip install torchao==0.18.0"
CLASSES = {
    "cpu": ("torchao.prototype.quantization.int4.int4_opaque_tensor", "Int4OpaqueTensor"),
    "xpu": ("torchao.quantization", "Int4PlainInt32Tensor"),
    "cuda": ("torchao.quantization", "Int4TilePackedTo4dTensor"),
}
# The kernel of the CPU takes blocks of 16 rows.
CPU_ROWS = 16
CUDA_ROWS, CUDA_COLUMNS, CUDA_INNER_TILES = 8, 1024, 8
# Up to this many rows of activations, the INT8 kernel of the CPU is faster than a product in 16 bits.
INT8_ROWS = 32
# How many rows of the output head are expanded to 16 bits at a time.
EXPANDED_ROWS = 16_384


def tensor_class(device: str) -> Any:
    """The class of torchao's INT4 tensor on that device; UserError where it is not installed."""
    module, name = CLASSES[device]
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"INT4 on {device} needs {name} of torchao; {INSTALL}") from error


def kernel_takes(shape: tuple[int, int], device: str) -> bool:
    """Whether the device's kernel takes a weight of that shape. The kernels of xpu and cuda pad it."""
    return device != "cpu" or shape[0] % CPU_ROWS == 0


def int4_parameter(weight: Int4Weight, device: str, dtype: torch.dtype) -> torch.nn.Parameter:
    """The weight as a parameter of a linear layer on the device; `dtype` is that of the activations."""
    scales = weight.scales.to(device, dtype)
    zeros = torch.full_like(scales, MIDDLE) if weight.zeros is None else weight.zeros.to(device, dtype)
    parts = PARTS[device](weight.packed.to(device), scales, zeros)
    return _frozen(tensor_class(device)(*parts, [1, weight.group_size], torch.Size(weight.shape)))


def xpu_parts(packed: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> Parts:
    """qdata, scale and zero point (groups, N) of `Int4PlainInt32Tensor`, whose kernel computes
    (u - zero) * scale; from packed codes (N, K/8), scales and zeros (N, groups)."""
    qdata = torch.ops.aten._convert_weight_to_int4pack(packed.view(torch.uint8), 8)
    return qdata, scales.t().contiguous(), zeros.t().contiguous().to(torch.int8)


def cuda_parts(packed: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> Parts:
    """qdata, scales and offsets of `Int4TilePackedTo4dTensor`, in the bfloat16 that its kernel needs. Rows
    and columns are padded to the multiples that it takes, with weights of zero."""
    codes = unpack(packed)
    rows, columns = -codes.shape[0] % CUDA_ROWS, -codes.shape[1] % CUDA_COLUMNS
    more = (0, columns * scales.shape[1] // codes.shape[1], 0, rows)
    codes = functional.pad(codes, (0, columns, 0, rows), value=MIDDLE)
    scales = functional.pad(scales.bfloat16(), more, value=1.0)
    zeros = functional.pad(zeros.bfloat16(), more, value=MIDDLE)
    pairs = codes[:, ::2] << 4 | codes[:, 1::2]
    qdata = torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), CUDA_INNER_TILES)
    return qdata, _scales_and_offsets(scales, zeros)


def cpu_parts(packed: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor) -> Parts:
    """qdata, scales and offsets of `Int4OpaqueTensor`."""
    qdata = torch.ops.aten._convert_weight_to_int4pack_for_cpu(unpack(packed).int(), 1)
    return qdata, _scales_and_offsets(scales, zeros)


def _scales_and_offsets(scales: torch.Tensor, zeros: torch.Tensor) -> torch.Tensor:
    """Scales and offsets of shape (groups, N, 2), for kernels that compute (u - 8) * scale + offset."""
    offsets = (MIDDLE - zeros) * scales
    return torch.stack((scales, offsets), dim=-1).transpose(0, 1).contiguous()


PARTS = {"cpu": cpu_parts, "xpu": xpu_parts, "cuda": cuda_parts}


def int8_parameters(weight: Int8Weight, device: str, dtype: torch.dtype) -> Int8Weight:
    """The weight as parameters on the device, which table and head can share."""
    # The values are copied, as the CPU's INT8 kernel crashes on unaligned memory such as a mapped file's.
    values8, scales = weight.values8.to(device, copy=True), weight.scales.to(device, dtype)
    return Int8Weight(values8=_frozen(values8), scales=_frozen(scales))


def stored_bytes(parameter: torch.Tensor) -> int:
    """The bytes that a parameter takes. `nbytes` of torchao's tensors counts the unquantized values."""
    names = getattr(type(parameter), "tensor_data_names", None)
    return sum(stored_bytes(getattr(parameter, name)) for name in names) if names else int(parameter.nbytes)


def bit_sum(tensor: torch.Tensor) -> int:
    """The sum of a tensor's bits, read as integers, which any change of a single value changes."""
    names = getattr(type(tensor), "tensor_data_names", None)
    if names:
        return sum(bit_sum(getattr(tensor, name)) for name in names)
    data = tensor.detach().contiguous().view(-1).view(torch.uint8)
    whole = data.numel() // 8 * 8
    # Sums of 64-bit integers wrap around, which loses nothing here.
    return int(data[:whole].view(torch.int64).sum()) + int(data[whole:].sum())


class Int8Embedding(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """A token table in INT8, whose rows are expanded to the model's dtype when they are looked up."""

    def __init__(self, weight: Int8Weight) -> None:
        super().__init__()
        self.weight = weight.values8
        self.scales = weight.scales

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Token ids of any shape to vectors of shape (..., hidden size)."""
        scales = self.scales[token_ids]
        return self.weight[token_ids].to(scales.dtype) * scales[..., None]


class Int8Head(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
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
            parts = self.weight.split(EXPANDED_ROWS)
            products = [functional.linear(rows, part.to(rows.dtype)) for part in parts]
            logits = torch.cat(products, dim=-1) * self.scales
        if self.bias is not None:
            logits = logits + self.bias
        return logits.view(*hidden.shape[:-1], -1)


def _frozen(values: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(values, requires_grad=False)
