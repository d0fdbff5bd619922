"""`torch.autocast("xpu")` on the emulated device.

torch keeps the state of xpu's autocast in every build, but only tensors of a real xpu meet its kernels. The
lists are those of torch 2.8 (aten/src/ATen/autocast_mode.h, AT_FORALL_LOWER_PRECISION_FP, AT_FORALL_FP32 and
AT_FORALL_FP32_SET_OPT_DTYPE), as far as language models use them. IPEX's own operators are on none of them.
"""

from collections.abc import Callable
from typing import Any

import torch

LOWER_PRECISION = frozenset(
    {
        *("addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "chain_matmul", "conv1d", "conv2d"),
        *("einsum", "linear", "matmul", "__matmul__", "__rmatmul__", "mm", "mv", "multi_dot"),
        *("scaled_dot_product_attention",),
    }
)
FLOAT32 = frozenset(
    {
        *("acos", "asin", "cosh", "cosine_similarity", "erfinv", "exp", "expm1", "group_norm", "kl_div"),
        *("layer_norm", "log", "log10", "log1p", "log2", "logsumexp", "nll_loss", "norm", "pow", "__pow__"),
        *("__rpow__", "reciprocal", "rsqrt", "sinh", "softplus", "tan"),
    }
)
FLOAT32_UNLESS_GIVEN = frozenset({"softmax", "log_softmax", "cumprod", "cumsum", "prod", "sum"})
FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def cast(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], is_xpu: Callable[[torch.Tensor], bool]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call as autocast would hand them on; as they are where it is off."""
    if not torch.is_autocast_enabled("xpu"):
        return args, kwargs
    if name in LOWER_PRECISION:
        wanted = torch.get_autocast_dtype("xpu")
    elif name in FLOAT32 or (name in FLOAT32_UNLESS_GIVEN and kwargs.get("dtype") is None):
        wanted = torch.float32
    else:
        return args, kwargs

    def one(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(wanted) if value.dtype in FLOATS and is_xpu(value) else value
        if isinstance(value, list | tuple):
            return type(value)(one(item) for item in value)
        return value

    return tuple(one(value) for value in args), {key: one(value) for key, value in kwargs.items()}
