"""`--depths` with caches of random values against real prompts, on tiny models and this CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPTJConfig, GPTJForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.conftest import CommandLine
from xpubench.runtimes.pytorch.runtime import PyTorchRuntime

POSITIONS = 2048


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose attention outweighs everything else: 16 heads of 64 values, of which 4 keys."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        head_dim=64,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=POSITIONS,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("wide-llama")
    LlamaForCausalLM(config).save_pretrained(directory, safe_serialization=True)
    return directory


def curve_of(generate: CommandLine, model: Path, *flags: object) -> dict[str, Any]:
    done = generate(model, "--depths", 0, 512, 2000, "--json", *flags)
    assert done.code == 0, done.err
    record = done.records[0]
    assert record["explanation"] is not None, record["warnings"]
    found: dict[str, Any] = record["explanation"]["depth"]
    return found


@pytest.mark.parametrize("flags", [[], ["--use-static-cache"], ["--batch-size", "2"], ["--num-beams", "2"]])
def test_the_curve_rises_from_caches_of_random_values(
    generate: CommandLine, wide: Path, flags: list[str]
) -> None:
    found = curve_of(generate, wide, *flags)
    assert found["method"] == "caches of random values"
    first, _, last = (point["next_token_ms"] for point in found["points"])
    assert last > first
    assert found["slope_ns"] > 0


def test_the_curve_agrees_in_order_with_that_of_real_prompts(
    generate: CommandLine, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = curve_of(generate, wide)
    monkeypatch.setattr(PyTorchRuntime, "continue_random_cache", lambda *_: None)
    prompted = curve_of(generate, wide)
    assert prompted["method"] == "prompts of random tokens"
    for found in (filled, prompted):
        times = [point["next_token_ms"] for point in found["points"]]
        assert times[0] < times[2]
    # Other work on the machine has made one of them 4.6 times as steep.
    assert 1 / 10 < filled["slope_ns"] / prompted["slope_ns"] < 10


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_filled_cache_is_attended_to(generate: CommandLine, wide: Path, cache: str) -> None:
    """The steps read as many positions as the prompt has: none of the cache is dropped."""
    seen: list[int] = []
    original = torch.nn.functional.scaled_dot_product_attention

    def watched(query: torch.Tensor, key: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
        mask = named.get("attn_mask", more[1] if len(more) > 1 else None)
        if mask is None or cache == "dynamic":
            read = key.shape[-2]
        else:
            # transformers 4 adds a mask to the scores, so that 0 stands where a position is read.
            read = int((mask[0, 0, -1] == (mask.dtype == torch.bool)).sum())
        seen.append(read)
        return original(query, key, *more, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
        curve_of(generate, wide, *(["--use-static-cache"] if cache == "static" else []))
    # The models of the device card are seen as well, at other depths.
    assert set(range(2000 + 1, 2000 + 10)) <= set(seen)


def test_another_architecture(generate: CommandLine, tmp_path: Path) -> None:
    config = GPTJConfig(
        vocab_size=64, n_positions=POSITIONS, n_embd=64, n_layer=2, n_head=4, rotary_dim=16, eos_token_id=2
    )
    GPTJForCausalLM(config).save_pretrained(tmp_path / "gptj", safe_serialization=True)
    assert curve_of(generate, tmp_path / "gptj")["method"] == "caches of random values"


def test_a_model_too_short_is_refused(generate: CommandLine, tiny_llama: Path) -> None:
    done = generate(tiny_llama, "--depths", 0, 120)
    assert done.code == 2
    assert "lower --depths" in done.error_line


def test_the_steps_are_compiled_once_for_each_depth(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[object] = []
    made: list[tuple[int, int]] = []

    def listing(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph

    original = PyTorchRuntime.continue_random_cache

    def watched(self: PyTorchRuntime, prompt_ids: Any, workload: Any) -> Any:
        before = len(graphs)
        found = original(self, prompt_ids, workload)
        made.append((prompt_ids.shape[1] - 1, len(graphs) - before))
        return found

    torch._dynamo.register_backend(listing, name="listing")
    monkeypatch.setattr(PyTorchRuntime, "continue_random_cache", watched)
    flags = ("--use-static-cache", "--torch-compile", "--backend", "listing", "--depths", 0, 16)
    (record,) = generate(tiny_llama, *flags, "--json").records
    assert record["explanation"] is not None, record["warnings"]
    # A generation that is not counted and three that are, twice.
    assert [depth for depth, _ in made] == [0] * 8 + [16] * 8
    compiling = [at % 8 for at, (_, graphs_made) in enumerate(made) if graphs_made]
    assert compiling == [0, 0]
