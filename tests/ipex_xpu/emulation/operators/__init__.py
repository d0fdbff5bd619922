"""The operators of `torch.ops.torch_ipex` that IPEX's language models call, as plain PyTorch on CPU tensors.

Each operator does what its C++ of v2.8.10+xpu does to shapes, dtypes and memory, with what the real kernel
refuses; its docstring names the file that was read, inside IPEX's tree. Sums are those of the CPU, so that
the rounding is not that of the real kernels.
"""

from tests.ipex_xpu.emulation.operators.registry import register

__all__ = ["register"]
