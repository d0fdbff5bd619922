"""Random weights made directly on the device: the speed of a model without its checkpoint."""

import logging
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM

from xpubench.errors import RunFailure
from xpubench.weights.pretrained import DTYPE_ARGUMENT

# One block of normal values is repeated over all weights, as drawing a billion values takes a minute on two
# cores. Its length is a prime, so that no two rows of a matrix begin at the same place of the block.
BLOCK = 1_048_583
SPREAD = 0.02
NORM_SPREAD = 0.1
# How far the block is turned from one parameter to the next, so that no two layers are equal.
TURN = 7_919


def build_dummy(config: dict[str, Any], *, dtype: str, device: str, seed: int) -> Any:
    """A model of the config's architecture with random weights in `dtype` on the device, in evaluation mode.

    Matrices are normal with standard deviation 0.02, norms lie near 1, biases near 0: logits are finite and
    depend on the tokens. Tied weights stay tied, and buffers such as rotary frequencies hold their values.
    Raises RunFailure `unsupported` where the installed transformers does not know the architecture.
    """
    model = _without_weights(config, getattr(torch, dtype))
    model.tie_weights()
    filler = _Filler(device, seed)
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, empty in module.named_parameters(recurse=False):
            if id(empty) not in made:
                made[id(empty)] = torch.nn.Parameter(filler.fill(name, empty), requires_grad=False)
            setattr(module, name, made[id(empty)])
    # What is left is buffers, which hold their values already.
    return model.to(device).eval()


def _without_weights(config: dict[str, Any], dtype: torch.dtype) -> Any:
    """The model with its parameters on the meta device and its buffers computed."""
    fields = {name: value for name, value in config.items() if name != "model_type"}
    try:
        settings = AutoConfig.for_model(config["model_type"], **fields)
    except ValueError as error:
        raise RunFailure(
            "unsupported",
            f"the architecture {config['model_type']!r} is not known to the installed transformers",
        ) from error
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with init_empty_weights(include_buffers=False):
        return AutoModelForCausalLM.from_config(settings, **{DTYPE_ARGUMENT: dtype})


class _Filler:
    """Makes filled parameters on the device, each from another part of one block of normal values."""

    def __init__(self, device: str, seed: int) -> None:
        generator = torch.Generator(device=device).manual_seed(seed)
        self._device = device
        self._block = torch.randn(BLOCK, generator=generator, device=device)
        self._turned = 0

    def fill(self, name: str, empty: torch.Tensor) -> torch.Tensor:
        """A tensor of the shape and dtype of `empty`."""
        norm = name == "weight" and empty.dim() == 1
        values = 1 + NORM_SPREAD * self._block if norm else SPREAD * self._block
        self._turned = (self._turned + TURN) % BLOCK
        values = values.roll(self._turned).to(empty.dtype)
        filled = torch.empty(empty.shape, dtype=empty.dtype, device=self._device)
        flat = filled.view(-1)
        whole = flat.numel() // BLOCK * BLOCK
        flat[:whole].view(-1, BLOCK).copy_(values)
        flat[whole:].copy_(values[: flat.numel() - whole])
        return filled
