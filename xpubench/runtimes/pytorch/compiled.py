"""torch.compile on the steps of a generation, and what it really did."""

from functools import wraps
from typing import Any

import torch

from xpubench.errors import RunFailure
from xpubench.runtimes.pytorch.decode import Forward, is_decode
from xpubench.runtimes.pytorch.options import CompileCounters


def compiled_steps(forward: Forward, *, backend: str, device: str, cache: str) -> Forward:
    """The model's `forward`, with the steps of one token compiled and the prompt's pass eager: a static
    cache that is created while torch traces keeps CUDA graphs from being used. A step that is recompiled
    too often raises RunFailure `unsupported`; torch alone would go on in eager mode, and its figures
    would be called compiled."""
    if hasattr(torch._dynamo.config, "fail_on_recompile_limit_hit"):
        torch._dynamo.config.fail_on_recompile_limit_hit = True
    # CUDA graphs take the launches off the critical path; they need inductor and shapes that stay.
    graphs = backend == "inductor" and device == "cuda" and cache == "static"
    compiled = torch.compile(forward, backend=backend, mode="reduce-overhead" if graphs else None)

    @wraps(forward)
    def chosen(*arguments: Any, **named: Any) -> Any:
        if not is_decode(named):
            return forward(*arguments, **named)
        try:
            return compiled(*arguments, **named)
        except Exception as error:
            # The class is private to torch, and not in all of its versions.
            if type(error).__name__ != "FailOnRecompileLimitHit":
                raise
            raise RunFailure(
                "unsupported",
                f"torch.compile makes a new graph at each step with the {cache} cache of this transformers; "
                "try --use-static-cache or a later one",
            ) from error

    return chosen


def compile_counters() -> CompileCounters:
    """What torch.compile did since its last reset."""
    counters = torch._dynamo.utils.counters
    return CompileCounters(
        graphs=counters["stats"]["unique_graphs"],
        graph_breaks=sum(counters["graph_break"].values()),
        cudagraph_skips=counters["inductor"]["cudagraph_skips"],
    )
