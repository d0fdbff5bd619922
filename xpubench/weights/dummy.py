"""Random weights made directly on the device: the speed of a model without its checkpoint."""

from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from xpubench.errors import RunFailure
from xpubench.weights.pretrained import DTYPE_ARGUMENT
from xpubench.weights.quiet import quiet_transformers

# One block of normal values is repeated over all weights, as drawing a billion values takes a minute on two
# cores. Its length is a prime, so that no two rows of a matrix begin at the same place of the block.
BLOCK = 1_048_583
SPREAD = 0.02
NORM_SPREAD = 0.1
# How far the block is turned from one parameter to the next, so that no two layers are equal.
TURN = 7_919


def build_dummy(config: dict[str, Any], *, dtype: str, device: str, seed: int) -> Any:
    """A model of the config's architecture with random weights in `dtype` on the device, in evaluation mode.

    Matrices are normal with the standard deviation of the config's `initializer_range`, else 0.02, norms lie
    near 1, biases near 0: logits are finite and depend on the tokens. Tied weights stay tied, and buffers
    such as rotary frequencies hold their values.
    Raises RunFailure `unsupported` where the installed transformers does not know the architecture.
    """
    model = without_weights(config, getattr(torch, dtype))
    model.tie_weights()
    spread = getattr(model.config, "initializer_range", None) or SPREAD
    filler = Filler(device, seed, spread)
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, empty in module.named_parameters(recurse=False):
            if id(empty) not in made:
                made[id(empty)] = torch.nn.Parameter(filler.fill(name, empty), requires_grad=False)
            setattr(module, name, made[id(empty)])
    # What is left is buffers, which hold their values already.
    return model.to(device).eval()


def without_weights(config: dict[str, Any], dtype: torch.dtype) -> Any:
    """The model with its parameters on the meta device and its buffers computed."""
    model_type = config.get("model_type")
    if model_type not in CONFIG_MAPPING_NAMES:
        raise RunFailure(
            "unsupported", f"the architecture {model_type!r} is not known to the installed transformers"
        )
    settings = AutoConfig.for_model(**config)
    with quiet_transformers(), init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(settings, **{DTYPE_ARGUMENT: dtype})
    # A config need not name its class, and IPEX goes by that name.
    model.config.architectures = [type(model).__name__]
    return model


class Filler:
    """Makes filled parameters on the device, each from another part of one block of normal values."""

    def __init__(self, device: str, seed: int, spread: float) -> None:
        generator = torch.Generator(device=device).manual_seed(seed)
        self._device = device
        self._block = torch.randn(BLOCK, generator=generator, device=device)
        self._spread = spread
        self._turned = 0

    def fill(self, name: str, empty: torch.Tensor) -> torch.Tensor:
        """A tensor of the shape and dtype of `empty`."""
        self._turned = (self._turned + TURN) % BLOCK
        values = self.values(name, empty, self._turned)
        filled = torch.empty(empty.shape, dtype=empty.dtype, device=self._device)
        flat = filled.view(-1)
        whole = flat.numel() // BLOCK * BLOCK
        flat[:whole].view(-1, BLOCK).copy_(values)
        flat[whole:].copy_(values[: flat.numel() - whole])
        return filled

    def values(self, name: str, empty: torch.Tensor, turned: int) -> torch.Tensor:
        """The block whose repetition fills a parameter like `empty`, of shape (BLOCK,), in its dtype."""
        norm = name == "weight" and empty.dim() == 1
        values = 1 + NORM_SPREAD * self._block if norm else self._spread * self._block
        return values.roll(turned).to(empty.dtype)
