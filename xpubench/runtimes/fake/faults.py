"""Faults that are planted in a real model, to see that a run with them is no result.

Each is named after what users met; the numbers are those of the threads. A fault changes the model that a
`FaultyRuntime` has loaded by hooks, or its weights, and nothing else.
"""

from collections.abc import Callable
from typing import Any

import torch

from xpubench.runtimes.pytorch.random_cache import CACHE_ARGUMENT

Model = Any
Hook = Callable[[Any, Any], Any]


class Moment:
    """What the runtime is doing: whether it times a generation, which one, and the steps of this one."""

    def __init__(self) -> None:
        self.timed = False
        self.generation = 0
        self.step = 0


def _on_logits(change: Callable[[Moment, torch.Tensor, dict[str, Any]], torch.Tensor]) -> Callable[..., None]:
    """A fault that changes the logits of each pass, of shape (batch, positions, vocabulary); it also gets the
    arguments of the pass."""

    def plant(model: Model, moment: Moment) -> None:
        def hook(_: Any, arguments: Any, named: dict[str, Any], output: Any) -> Any:
            output.logits = change(moment, output.logits, named)
            moment.step += 1
            return output

        model.register_forward_hook(hook, with_kwargs=True)

    return plant


def _garbage(logits: torch.Tensor) -> torch.Tensor:
    return logits.roll(logits.shape[-1] // 3, dims=-1)


def _token_0(logits: torch.Tensor) -> torch.Tensor:
    forced = logits.clone()
    forced[..., 0] = logits.amax() + 10
    return forced


def _rows_from_2_zero(moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
    """vllm 53211: the first request of a batch is right, the others are garbage."""
    logits = logits.clone()
    logits[1:] = 0
    return logits


def _poison_after_tokens(moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
    """vllm 41663: token 0 for ever after a number of tokens."""
    return _token_0(logits) if moment.timed and moment.step >= 3 else logits


def _poison_after_time(moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
    """vllm 53480: token 0 for ever after a while."""
    return _token_0(logits) if moment.generation > 4 else logits


class _Stale:
    """A graph that is replayed with the inputs of its capture: each step gives what the first generation of
    that shape gave."""

    def __init__(self) -> None:
        self.kept: dict[tuple[Any, ...], torch.Tensor] = {}

    def __call__(self, moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
        return self.kept.setdefault((moment.step, *logits.shape), logits.clone()) if moment.timed else logits


def _leaking_row(moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
    """A row of a batch gets its neighbour's logits."""
    return logits.roll(1, dims=0) if logits.shape[1] == 1 else logits


def _faint_leak(moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
    """A row of a batch gets a thousandth of its neighbour's logits, which seldom changes a token."""
    return logits + 1e-3 * logits.roll(1, dims=0)


def _wrong_compiled(model: Model, moment: Moment) -> None:
    """The compiler's code gives other logits than the eager one."""

    def hook(module: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
        return _garbage(output) if torch.compiler.is_compiling() else output

    model.get_output_embeddings().register_forward_hook(hook)


def _wrong_static_cache(moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
    return _garbage(logits) if "Static" in type(named.get(CACHE_ARGUMENT)).__name__ else logits


def _wrong_timed(moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
    return _garbage(logits) if moment.timed else logits


def _one_odd_generation(moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
    """A transient error of memory or of a link: one generation of many is wrong."""
    return _garbage(logits) if moment.generation == 4 else logits


def _constant_logits(moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
    """torch-xpu-ops 5220: a linear layer in float16 gives zeros."""
    return torch.zeros_like(logits)


def _random_logits(moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
    return torch.randn_like(logits)


def _wrong_for_one_token(moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
    """torch-xpu-ops 4765: the product of one row is wrong."""
    return _garbage(logits) if logits.shape[1] == 1 else logits


def _nan_embedding(model: Model, moment: Moment) -> None:
    """A row of the token table is NaN, which only some prompts meet."""
    rows = model.get_input_embeddings().weight.data
    rows[:: max(1, len(rows) // 40)] = torch.nan


def _overwritten_weights(model: Model, moment: Moment) -> None:
    """Another allocation overwrites a part of the weights during the run."""

    def hook(module: Any, arguments: Any) -> None:
        if moment.generation == 4:
            next(model.base_model.layers[-1].parameters()).data[:8] = 0

    model.register_forward_pre_hook(hook)


def _dropped_rank(model: Model, moment: Moment) -> None:
    """The sum over ranks lacks the part of one of two."""
    for layer in model.base_model.layers:
        weight = layer.mlp.down_proj.weight
        weight.data = weight.data.clone()
        weight.data[:, : weight.shape[1] // 2] = 0


def _shifted_scales(model: Model, moment: Moment) -> None:
    """INT4 scales are read a group too late. The groups are those of 32 inputs."""
    for layer in model.base_model.layers:
        weight = layer.mlp.up_proj.weight.data
        groups = weight.view(len(weight), -1, 32)
        scales = groups.abs().amax(-1, keepdim=True).clamp(min=1e-6)
        layer.mlp.up_proj.weight.data = (groups / scales * scales.roll(1, dims=0) * 2).view_as(weight)


def _no_causal_mask(model: Model, moment: Moment) -> None:
    """IPEX 2.8.10 on GPUs without 2D block loads: the prompt's tokens see those after them."""
    # A mask that adds nothing anywhere, as without any the attention of torch is told to be causal.
    empty = torch.zeros(1, 1, 1, 1, dtype=model.dtype)

    def hook(module: Any, arguments: Any, named: dict[str, Any]) -> Any:
        return arguments, named | {"attention_mask": empty}

    for layer in model.base_model.layers:
        layer.self_attn.register_forward_pre_hook(hook, with_kwargs=True)


def _long_prompts(model: Model, moment: Moment) -> None:
    """sgl-kernel 243: attention is right for short inputs and garbage for longer ones."""

    def hook(module: Any, arguments: Any, named: dict[str, Any], output: Any) -> Any:
        states = output[0]
        wrong = states.flip(1) if states.shape[1] > 24 else states
        return (wrong, *output[1:])

    for layer in model.base_model.layers:
        layer.self_attn.register_forward_hook(hook, with_kwargs=True)


class _FromPrompt:
    """Notes the prompts in the order in which they are first timed, of which the fourth is neither the first
    nor the last of a run."""

    def __init__(self) -> None:
        self._known: list[bytes] = []
        self.fourth = False

    def see(self, moment: Moment, input_ids: torch.Tensor) -> None:
        """Takes the input of a pass, of shape (batch, positions)."""
        if not moment.timed:
            self.fourth = False
        elif input_ids.shape[1] > 1:
            prompt = input_ids.numpy().tobytes()
            if prompt not in self._known:
                self._known.append(prompt)
            self.fourth = self._known.index(prompt) == 3


def _middle_prompt(model: Model, moment: Moment) -> None:
    """One prompt of many is always answered wrongly, as by a kernel that some inputs break."""
    from_prompt = _FromPrompt()

    def hook(_: Any, arguments: Any, named: dict[str, Any], output: Any) -> Any:
        from_prompt.see(moment, named["input_ids"])
        output.logits = _garbage(output.logits) if from_prompt.fourth else output.logits
        return output

    model.register_forward_hook(hook, with_kwargs=True)


def _sixth_row(moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
    """The sixth of eight rows is wrong, which is none of the four check prompts."""
    part = len(logits) // 8
    logits = logits.clone()
    logits[5 * part : 6 * part] = _garbage(logits[5 * part : 6 * part])
    return logits


def _swapped_rows(moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
    """Two rows of a batch have each other's logits."""
    order = list(range(len(logits)))
    order[-2:] = reversed(order[-2:])
    return logits[order]


class _StaleRow:
    """One row of a batch has the logits of the step before."""

    def __init__(self) -> None:
        self.before: torch.Tensor | None = None

    def __call__(self, moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
        given, before = logits.clone(), self.before
        if logits.shape[1] == 1 and before is not None and before.shape[0] == logits.shape[0]:
            given[-1, -1] = before[-1, -1]
        self.before = logits
        return given


def _stuck_last_token(moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
    """The twelfth token is that before it again."""
    if moment.step < 11:
        return logits
    forced = logits.clone()
    forced[..., -1, :].scatter_(-1, named["input_ids"][:, -1:], float(logits.amax()) + 10)
    return forced


def _nan_row(moment: Moment, logits: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
    """One step of one row is NaN, in timed generations alone."""
    if not moment.timed or moment.step != 5:
        return logits
    logits = logits.clone()
    logits[-1, :, 7] = torch.nan
    return logits


FAULTS: dict[str, Callable[[Model, Moment], None]] = {
    "rows-from-2-zero": _on_logits(_rows_from_2_zero),
    "poison-after-tokens": _on_logits(_poison_after_tokens),
    "poison-after-time": _on_logits(_poison_after_time),
    "stale-replay": lambda model, moment: _on_logits(_Stale())(model, moment),
    "leaking-row": _on_logits(_leaking_row),
    "dropped-rank": _dropped_rank,
    "nan-embedding": _nan_embedding,
    "wrong-compiled": _wrong_compiled,
    "wrong-static-cache": _on_logits(_wrong_static_cache),
    "wrong-timed": _on_logits(_wrong_timed),
    "one-odd-generation": _on_logits(_one_odd_generation),
    "overwritten-weights": _overwritten_weights,
    "constant-logits": _on_logits(_constant_logits),
    "random-logits": _on_logits(_random_logits),
    "shifted-scales": _shifted_scales,
    "no-causal-mask": _no_causal_mask,
    "wrong-for-one-token": _on_logits(_wrong_for_one_token),
    "long-prompts": _long_prompts,
    "middle-prompt": _middle_prompt,
    "sixth-row": _on_logits(_sixth_row),
    "swapped-rows": _on_logits(_swapped_rows),
    "stale-row": lambda model, moment: _on_logits(_StaleRow())(model, moment),
    "stuck-last-token": _on_logits(_stuck_last_token),
    "nan-row": _on_logits(_nan_row),
    "faint-leak": _on_logits(_faint_leak),
}
