"""`generate` on real models: what it measures and writes."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.conftest import CommandLine
from xpubench.prompts import random_prompt
from xpubench.record import read_record


def _tokens_are_those_of_plain_transformers(
    generate: CommandLine, model: Path, special: frozenset[int], batches: tuple[int, ...], *flags: str
) -> None:
    done = generate(model, *flags, "--batch-size", *batches, "--max-new-tokens", 6, "--json")
    assert done.code == 0
    assert len(done.records) == len(batches)
    plain = AutoModelForCausalLM.from_pretrained(model)
    for record in done.records:
        batch = record["spec"]["workload"]["batch_size"]
        size = plain.config.vocab_size
        prompt = random_prompt(size, special, batch_size=batch, length=8, seed=0, index=0)
        expected = plain.generate(
            torch.from_numpy(prompt),
            attention_mask=torch.ones(batch, 8, dtype=torch.int64),
            do_sample=False,
            num_beams=record["spec"]["workload"]["num_beams"],
            max_new_tokens=6,
            min_new_tokens=6,
            eos_token_id=None,
            pad_token_id=2,
        )
        assert record["output"]["first_token_ids"] == expected[0, 8:].tolist()
        # transformers 4 hands a dynamic cache back as a tuple.
        static = "--use-static-cache" in flags
        assert record["checks"]["cache"] in (("StaticCache",) if static else ("DynamicCache", "tuple"))


@pytest.mark.parametrize("search", [["--greedy"], ["--num-beams", "3"]], ids=["greedy", "beams"])
@pytest.mark.parametrize("cache", [[], ["--use-static-cache"]], ids=["dynamic", "static"])
def test_the_tokens_are_those_of_plain_transformers(
    generate: CommandLine, tiny_llama: Path, search: list[str], cache: list[str]
) -> None:
    special = frozenset({0, 1, *range(128, 256)})
    _tokens_are_those_of_plain_transformers(generate, tiny_llama, special, (1, 2), *search, *cache)


def test_the_tokens_of_trained_weights(generate: CommandLine, short_smollm2: Path) -> None:
    flags = ("--num-beams", "3", "--use-static-cache")
    _tokens_are_those_of_plain_transformers(generate, short_smollm2, frozenset({0, 1, 2}), (2,), *flags)


def test_what_a_record_holds(generate: CommandLine, tiny_llama: Path, tmp_path: Path) -> None:
    done = generate(tiny_llama, "--num-iter", 4, "--num-warmup", 1, "--json")
    assert done.code == 0
    (record,) = done.records
    assert record["status"] == "ok"
    iterations = record["samples"]["iterations"]
    assert [one["sync_policy"] for one in iterations] == [
        *("every_token", "end_to_end", "end_to_end", "every_token", "every_token", "end_to_end")
    ]
    for one in iterations:
        if one["sync_policy"] == "every_token":
            assert len(one["next_token_ns"]) == 3
            assert 0 < one["first_token_ns"] + sum(one["next_token_ns"]) <= one["end_to_end_ns"]
        else:
            assert one["first_token_ns"] is None
    summary = record["summary"]
    assert summary["first_token_ms"]["n"] == 3
    assert summary["next_token_ms"]["n"] == 9
    assert summary["perturbation"] > 0
    assert 0 < summary["mbu_measured"] < 1
    assert summary["mbu_datasheet"] is None
    assert summary["peak_device_bytes"] is None
    assert summary["peak_host_bytes"] > 10**8
    assert record["bandwidth"]["ceiling_gb_per_s"] > 1
    assert record["plan"]["weight_bytes"] == record["runtime"]["weight_bytes"]
    assert record["environment"]["versions"]["torch"] == torch.__version__
    assert record["environment"]["harness"]["commit"]
    path = tmp_path / "results" / f"{record['id']}.json"
    assert json.loads(path.read_text()) == record
    assert read_record(path).id == record["id"]


def test_several_shapes_have_a_static_cache_of_their_own(generate: CommandLine, tiny_llama: Path) -> None:
    done = generate(tiny_llama, "--input-tokens", 40, 8, "--batch-size", 1, 2, "--use-static-cache", "--json")
    assert done.code == 0
    shapes = {
        (one["spec"]["workload"]["input_tokens"], one["spec"]["workload"]["batch_size"]): one
        for one in done.records
    }
    assert set(shapes) == {(40, 1), (40, 2), (8, 1), (8, 2)}
    # A small shape after a large one does not run in the large one's cache.
    positions = {length: one["checks"]["cache_positions"] for (length, _), one in shapes.items()}
    assert positions[8] in (11, 12)
    assert positions[40] in (43, 44)


def test_prompts_differ_between_iterations_and_follow_the_seed(tiny_llama: Path) -> None:
    def prompt(seed: int, index: int) -> list[list[int]]:
        special = frozenset({1, 5})
        return random_prompt(256, special, batch_size=2, length=32, seed=seed, index=index).tolist()  # type: ignore[no-any-return]

    assert prompt(0, 0) == prompt(0, 0)
    assert prompt(0, 0) != prompt(0, 1) != prompt(1, 1)
    assert prompt(0, 0)[0] != prompt(0, 0)[1]
    drawn = {token for index in range(50) for row in prompt(0, index) for token in row}
    assert not drawn & {1, 5}


def test_a_text_prompt_is_used_as_given(generate: CommandLine, smollm2: Path) -> None:
    done = generate(smollm2, "--prompt", "Gravity is", "--max-new-tokens", 8, "--json")
    (record,) = done.records
    assert record["summary"]["input_tokens"] == 3
    assert "physics" in record["output"]["first_text"]
    for one in record["samples"]["iterations"]:
        assert one["tokenize_ns"] > 0
        assert one["detokenize_ns"] > 0


def test_the_table_for_people(generate: CommandLine, tiny_llama: Path, tmp_path: Path) -> None:
    done = generate(tiny_llama, "--token-latency", "--print-memory", "--dtype", "float16")
    assert done.code == 0
    for words in (
        *(
            "first token",
            "next token",
            "end to end",
            "95% interval",
            "p90",
            "tokens/s",
            "MBU",
            "perturbation",
        ),
        *("peak memory", "float16 is slow on CPUs", "time of each token", "plan", "warning", "results/"),
    ):
        assert words in done.out, words
    assert "next, " in done.err
    assert "every_token: " in done.err


def test_the_device_is_chosen_and_told(xpubench: CommandLine, tiny_llama: Path, tmp_path: Path) -> None:
    done = xpubench(
        *("generate", "-m", tiny_llama, "--greedy", "--input-tokens", 8, "--max-new-tokens", 2),
        *("--num-iter", 1, "--results-dir", tmp_path, "--json"),
    )
    assert done.code == 0
    (record,) = done.records
    assert f"using {record['spec']['subject']['device']}" in done.err
