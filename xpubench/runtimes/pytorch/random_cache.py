"""KV caches of random values, by transformers' public classes, from which a generation goes on."""

import inspect
from typing import Any

import torch
from transformers import DynamicCache, StaticCache
from transformers.generation import GenerateDecoderOnlyOutput

from xpubench.spec import Workload

# Later versions of transformers call the cache by another name.
CACHE_ARGUMENT = (
    "cache" if "cache" in inspect.get_annotations(GenerateDecoderOnlyOutput) else "past_key_values"
)


def cache_of(output: Any) -> Any:
    """The cache in what `generate` returned, None where it has none."""
    return getattr(output, CACHE_ARGUMENT, None)


def random_cache(config: Any, like: Any, positions: int, workload: Workload) -> Any:
    """A cache with random keys and values, of normal distribution, at that many positions of each layer of
    the cache `like`, which is dynamic and has the layers' shapes (sequences, heads, any length, head dim). It
    is of the workload's kind, and a static one has room for its new tokens. None for no position."""
    if positions == 0:
        return None
    layers = [one[:2] for one in like]
    sequences, device, dtype = layers[0][0].shape[0], layers[0][0].device, layers[0][0].dtype
    cache: Any
    if workload.cache == "static":
        # Earlier versions want the size and the dtype, which later ones take from the first update.
        more = {"max_batch_size": sequences, "device": device, "dtype": dtype}
        cache = StaticCache(config=config, max_cache_len=positions + 1 + workload.new_tokens, **more)
    elif "config" in inspect.signature(DynamicCache).parameters:
        cache = DynamicCache(config=config)
    else:
        cache = DynamicCache()
    where = {"cache_position": torch.arange(positions, device=device)}
    for place, pair in enumerate(layers):
        values = [
            torch.randn(*one.shape[:2], positions, one.shape[3], device=device).to(one.dtype) for one in pair
        ]
        cache.update(*values, place, where)
    return cache
