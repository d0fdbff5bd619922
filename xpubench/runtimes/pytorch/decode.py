"""The steps of one token of a generation, as a model's `forward` sees them, and oneDNN in them."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import torch

from xpubench.runtimes.pytorch.options import OneDnnBfloat16

Forward = Callable[..., Any]


def is_decode(named: dict[str, Any]) -> bool:
    """Whether a call of `forward` with these named arguments is a step of one token for each sequence."""
    input_ids = named.get("input_ids")
    return input_ids is not None and input_ids.shape[1] == 1


def onednn_bfloat16() -> OneDnnBfloat16:
    """What oneDNN computes bfloat16 products with on this CPU."""
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "none"
    return "amx" if torch.cpu._is_amx_tile_supported() else "vectors"


class DecodeWithoutOneDnn:
    """The model's `forward` with oneDNN off in the steps of one token, and the prompt's pass as it is.
    `steps` is the number of steps in which torch said that oneDNN was off."""

    def __init__(self, forward: Forward) -> None:
        self.steps = 0
        self._forward = forward
        # transformers reads the names of the arguments of `forward`.
        update_wrapper(self, forward)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not is_decode(named):
            return self._forward(*arguments, **named)
        # `torch.backends.mkldnn.flags` would set TF32 and determinism too.
        before = torch.backends.mkldnn.enabled
        torch.backends.mkldnn.enabled = False
        try:
            self.steps += not torch.backends.mkldnn.enabled
            return self._forward(*arguments, **named)
        finally:
            torch.backends.mkldnn.enabled = before
