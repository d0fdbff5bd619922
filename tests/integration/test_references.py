"""How far a run is from a reference, and references that are none."""

import json
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.conftest import CommandLine


@pytest.fixture
def other_model(tmp_path: Path) -> Path:
    """A directory with a model of a larger vocabulary."""
    config = LlamaConfig(
        vocab_size=4096, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "other", safe_serialization=True)
    return tmp_path / "other"


def test_the_divergence_from_float32(generate: CommandLine, short_smollm2: Path) -> None:
    flags = ("--dtype", "bfloat16", "--reference", "cpu-float32", "--json")
    rounded = generate(short_smollm2, *flags).records[0]["divergence"]
    assert rounded["top1_agreement"] > 0.9
    assert 1e-5 < rounded["mean_kl"] < 0.05


def test_the_reference_may_be_a_record_or_the_cpu(
    generate: CommandLine, tiny_llama: Path, tmp_path: Path
) -> None:
    float32 = generate(tiny_llama, "--json").records[0]
    path = tmp_path / "results" / f"{float32['id']}.json"
    same = generate(tiny_llama, "--seed", 1, "--reference", path, "--json").records[0]["divergence"]
    assert same["top1_agreement"] == 1
    assert same["mean_kl"] < 1e-5
    assert same["first_divergence"] == [None] * 4
    assert same["positions"] == 4 * 32
    by_record, by_cpu = (
        generate(tiny_llama, "--dtype", "bfloat16", "--reference", one, "--json").records[0]["divergence"]
        for one in (path, "cpu-float32")
    )
    assert by_record["mean_kl"] > 0
    assert by_cpu == by_record | {"reference": "cpu-float32"}


@pytest.mark.parametrize(
    ("reference", "words"), [("nowhere.json", "no such reference"), ("cpu-float16", "no such reference")]
)
def test_a_reference_that_is_not_there(
    generate: CommandLine, tiny_llama: Path, reference: str, words: str
) -> None:
    done = generate(tiny_llama, "--reference", reference)
    assert done.code == 2
    assert words in done.error_line


def test_a_reference_of_another_model(
    generate: CommandLine, tiny_llama: Path, other_model: Path, tmp_path: Path
) -> None:
    other = generate(other_model, "--json").records[0]
    done = generate(tiny_llama, "--reference", tmp_path / "results" / f"{other['id']}.json")
    assert done.code == 2
    assert f"ran {other_model}, not {tiny_llama}" in done.error_line


def test_a_reference_of_another_vocabulary(
    generate: CommandLine, tiny_llama: Path, other_model: Path, tmp_path: Path
) -> None:
    other = generate(other_model, "--json").records[0]
    path = tmp_path / "results" / f"{other['id']}.json"
    other["spec"]["subject"]["model"] = str(tiny_llama)
    # As of a record that was made before records told the weights.
    other["fingerprint"] = None
    path.write_text(json.dumps(other))
    done = generate(tiny_llama, "--reference", path)
    assert done.code == 2
    assert "another vocabulary" in done.error_line


def test_a_reference_that_is_no_record_of_a_good_run(
    generate: CommandLine, tiny_llama: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.json"
    path.write_text("garbage")
    assert "not JSON" in generate(tiny_llama, "--reference", path).error_line
    failed = generate("bigscience/bloom", "--dummy-weights", "--json").records[0]
    done = generate(tiny_llama, "--reference", tmp_path / "results" / f"{failed['id']}.json")
    assert done.code == 2
    assert "failed run (oom)" in done.error_line


def test_a_run_does_not_overwrite_its_reference(
    generate: CommandLine, tiny_llama: Path, tmp_path: Path
) -> None:
    first = generate(tiny_llama, "--json").records[0]
    done = generate(tiny_llama, "--reference", tmp_path / "results" / f"{first['id']}.json")
    assert done.code == 2
    assert "overwrite" in done.error_line
