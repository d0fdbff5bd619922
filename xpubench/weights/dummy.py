"""Random weights made directly on the device: the speed of a model without its checkpoint."""

from collections.abc import Iterator
from typing import Any

import torch

from xpubench.weights.empty import empty_model, parameter_places

# One block of normal values is repeated over all weights, as drawing a billion values takes a minute on two
# cores. Its length is a prime, so that no two rows of a matrix start at the same place in the block.
BLOCK = 1_048_583
SPREAD = 0.02
NORM_SPREAD = 0.1
# How far the block is rolled from one parameter to the next, so that no two layers are equal.
TURN = 7_919


def build_dummy(config: dict[str, Any], *, dtype: str, device: str, seed: int) -> Any:
    """A model of the config's architecture with random weights in `dtype` on the device, in evaluation mode.
    Tied weights stay tied, and buffers such as rotary frequencies keep their values. RunFailure `unsupported`
    where the installed transformers does not know the architecture."""
    model = empty_model(config, getattr(torch, dtype))
    places = parameter_places(model)
    for name, values in dummy_tensors(model, device=device, seed=seed):
        parameter = torch.nn.Parameter(values, requires_grad=False)
        for module, attribute in places[name]:
            setattr(module, attribute, parameter)
    # Only the buffers, which have their values already, are still to be moved.
    return model.to(device).eval()


def dummy_tensors(model: Any, *, device: str, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and random values on the device of each parameter of an empty model, in the parameter's dtype.
    Matrices are normal with the standard deviation of the config's `initializer_range`, else 0.02, norms are
    near 1 and biases near 0, so that logits are finite and depend on the tokens."""
    filler = Filler(device, seed, getattr(model.config, "initializer_range", None) or SPREAD)
    for name, ((module, attribute), *_) in parameter_places(model).items():
        yield name, filler.fill(attribute, getattr(module, attribute))


class Filler:
    """Fills parameters on the device, each from another part of one block of normal values."""

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
        """The block of shape (BLOCK,) that is repeated in a parameter like `empty`, in the dtype of
        `empty`."""
        norm = name == "weight" and empty.dim() == 1
        values = 1 + NORM_SPREAD * self._block if norm else self._spread * self._block
        return values.roll(turned).to(empty.dtype)
