"""What several tests of real small models share."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers


@pytest.fixture(scope="session", autouse=True)
def modules_that_are_not_collected() -> None:
    """Spares each run that frees its model a search of all imported modules, which takes half a second."""
    assert transformers.LlamaForCausalLM
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def backends() -> Iterator[dict[str, int]]:
    """Two compiler backends of our own: one that counts the calls of its graphs, and one that also errs."""
    calls = {"counting": 0, "erring": 0}

    def make(name: str, scale: float) -> None:
        def backend(graph: Any, _: Any) -> Any:
            def run(*inputs: Any) -> Any:
                calls[name] += 1
                outputs = graph(*inputs)
                return [
                    one * scale if isinstance(one, torch.Tensor) and one.is_floating_point() else one
                    for one in outputs
                ]

            return run

        torch._dynamo.register_backend(backend, name=name)

    make("counting", 1.0)
    make("erring", 1.5)
    yield calls
    torch.compiler.reset()
