"""The tensors of a loaded model, and their bytes."""

from collections.abc import Iterable

import torch
from transformers import Cache

from xpubench.weights.int4.kernels import Int8Embedding, stored_bytes


def weights_and_constants(model: torch.nn.Module) -> list[torch.Tensor]:
    """All parameters and buffers of a model, each once, but for those of a static cache, which is a module of
    its model in transformers 4 and changes with each token."""
    found: dict[int, torch.Tensor] = {}
    for module in model.modules():
        if not isinstance(module, Cache):
            tensors = (*module.parameters(recurse=False), *module.buffers(recurse=False))
            # The keys are identities because torchao's tensors cannot be compared.
            found |= {id(one): one for one in tensors}
    return list(found.values())


def step_weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all weights outside embedding tables, from which a step reads one row for each sequence. A
    table that is tied to the output head counts once, as the head's."""
    return weight_bytes(
        module for module in model.modules() if not isinstance(module, torch.nn.Embedding | Int8Embedding)
    )


def weight_bytes(modules: Iterable[torch.nn.Module]) -> int:
    """Bytes of the weights of these modules themselves, each once. Layers of packed weights keep those, or
    their scales and zero points, as buffers (neural-compressor, IPEX, GPTQ, AWQ, AutoRound)."""
    weights: dict[int, torch.Tensor] = {}
    for module in modules:
        packed = module.buffers(recurse=False) if hasattr(module, "qweight") else ()
        weights |= {id(one): one for one in (*module.parameters(recurse=False), *packed)}
    return sum(map(stored_bytes, weights.values()))
