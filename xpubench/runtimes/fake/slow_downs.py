"""Slow-downs that are planted in a real model, to see that a token's ledger finds them. Each leaves the
logits as they are, and takes most of a token's time."""

from collections.abc import Callable
from time import perf_counter, sleep
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from xpubench.runtimes.fake.faults import Model, Moment

# What a slow-down takes, as a multiple of what the model itself takes.
TIMES = 2.0


def _after_each_pass(wait: Callable[[float], None]) -> Callable[[Model, Moment], None]:
    """A slow-down that waits after each pass for a multiple, in seconds, of the shortest pass so far over as
    many tokens. A multiple of the pass's own time would multiply what the profiler adds to it."""

    def plant(model: Model, moment: Moment) -> None:
        started, shortest = [0.0], dict[int, float]()

        def before(*_: Any) -> None:
            started[0] = perf_counter()

        def after(module: Any, arguments: Any, named: dict[str, Any], output: Any) -> None:
            took, tokens = perf_counter() - started[0], int(named["input_ids"].shape[1])
            shortest[tokens] = min(took, shortest.get(tokens, took))
            wait(TIMES * shortest[tokens])

        model.register_forward_pre_hook(before)
        model.register_forward_hook(after, with_kwargs=True)

    return plant


def _spin(seconds: float) -> None:
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


def _second_read(model: Model, moment: Moment) -> None:
    """Each linear layer multiplies again, as one does whose weights are read several times."""

    def again(module: Any, arguments: Any, output: Any) -> None:
        with torch.inference_mode():
            for _ in range(int(TIMES) + 1):
                torch.nn.functional.linear(arguments[0], module.weight)

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(again)


def _quadratic_attention(model: Model, moment: Moment) -> None:
    """Each step attends from many positions to as many, not only from its own. They are so many that this
    computes several times what the layer's weights do, and in a tiny model several times what calling it
    takes (64 million multiplications and additions a layer)."""
    config = model.config.get_text_config()
    heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    positions = max(256, int((3 * config.intermediate_size) ** 0.5), int((16e6 / config.hidden_size) ** 0.5))
    queries = torch.randn(1, heads, positions, size, dtype=model.dtype)

    def hook(*_: Any) -> None:
        torch.nn.functional.scaled_dot_product_attention(queries, queries, queries)

    for layer in model.base_model.layers:
        layer.self_attn.register_forward_hook(hook)


def _small_kernels(model: Model, moment: Moment) -> None:
    """Each layer computes elementwise operators on many values beside its own."""

    def hook(module: Any, arguments: Any, output: Any) -> None:
        values = torch.ones(1 << 18)
        for _ in range(8):
            values = values.mul(1.5).exp().sigmoid()

    for layer in model.base_model.layers:
        layer.mlp.register_forward_hook(hook)


class _SlowDispatch(TorchDispatchMode):  # type: ignore[misc]  # torch carries no type here
    """Each operator takes a detour through Python, as in a build with checks."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        _spin(1e-4)
        return function(*arguments, **(named or {}))


def _debug_dispatch(model: Model, moment: Moment) -> None:
    forward = model.forward

    def slowly(*arguments: Any, **named: Any) -> Any:
        with _SlowDispatch():
            return forward(*arguments, **named)

    slowly.__wrapped__ = forward  # type: ignore[attr-defined]  # transformers reads its arguments' names
    model.forward = slowly


SLOW_DOWNS: dict[str, Callable[[Model, Moment], None]] = {
    "sleep": _after_each_pass(sleep),
    "busy-python": _after_each_pass(_spin),
    "second-read": _second_read,
    "quadratic-attention": _quadratic_attention,
    "small-kernels": _small_kernels,
    "debug-dispatch": _debug_dispatch,
}
