"""What several tests of real small models share."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers

from xpubench.measure import bandwidth, products
from xpubench.runtimes.pytorch import card


@pytest.fixture(scope="session", autouse=True)
def modules_that_are_not_collected() -> None:
    """Spares each run that frees its model a search of all imported modules, which takes half a second."""
    assert transformers.LlamaForCausalLM
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_bandwidth() -> Iterator[None]:
    """All runs of a process share one measurement of the bandwidth after the timed part, where a user's runs
    share it for ten seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandwidth, "RECENT_S", float("inf"))
        yield


@pytest.fixture(scope="session", autouse=True)
def small_cards() -> Iterator[None]:
    """Device cards from smaller measurements, which are kept on a busy machine too. A card takes longer than
    all else that a run of a tiny model does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card, "DEEP", 64)
        patch.setattr(card, "ROUNDS", 1)
        patch.setattr(card, "CPU_SHARE", 0.0)
        patch.setattr(products, "SIZES", {"cpu": (256,)})
        yield


@pytest.fixture(autouse=True)
def no_graphs_of_another_test() -> Iterator[None]:
    """torch limits the graphs that a process makes of one function, such as a model's forward."""
    yield
    torch.compiler.reset()


@pytest.fixture(scope="session")
def backends() -> dict[str, int]:
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
    return calls
