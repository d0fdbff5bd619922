"""Checkpoints that are broken, unsupported or not there: one line, the right exit code, no half record."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file

from tests.conftest import CommandLine
from xpubench.weights import source


def cut(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def cut_in_the_header(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:50])


def empty(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"")


def lose_a_shard(directory: Path) -> None:
    shards = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    (directory / "model.safetensors").rename(directory / shards[0])
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def lose_the_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


def lose_a_tensor(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def reshape_a_tensor(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 5)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def break_the_config(directory: Path) -> None:
    (directory / "config.json").write_text("{")


def lose_the_config(directory: Path) -> None:
    (directory / "config.json").unlink()


def change_the_config(**fields: Any) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def poison(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "status", "words"),
    [
        (cut, "bad_model", "not a whole safetensors file"),
        (cut_in_the_header, "bad_model", "not a whole safetensors file (50 bytes)"),
        (empty, "bad_model", "not a whole safetensors file (0 bytes)"),
        (lose_a_shard, "bad_model", "lacks model-00002-of-00002.safetensors"),
        (lose_the_weights, "bad_model", "no safetensors weights"),
        (lose_a_tensor, "bad_model", "first model.layers.1.mlp.up_proj.weight"),
        (reshape_a_tensor, "bad_model", "model.safetensors"),
        (poison, "numerics", "NaN or infinite logits"),
    ],
)
def test_a_broken_checkpoint_is_a_failed_run(
    generate: CommandLine,
    tiny_llama: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    status: str,
    words: str,
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(tiny_llama, directory)
    damage(directory)
    done = generate(directory, "--json")
    assert done.code == 1
    (record,) = done.records
    assert record["status"] == record["failure"]["class"] == status
    assert words in record["failure"]["message"] or damage is reshape_a_tensor
    assert words in done.error_line or damage is reshape_a_tensor
    assert record["summary"] is None
    assert [file.name for file in (tmp_path / "results").iterdir()] == [f"{record['id']}.json"]


# transformers 4 does not check a config, so that there the weights tell.
WRONG_HEADS = "another shape" if transformers.__version__.startswith("4.") else "attention heads"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_the_config, "bad_model"),
        (lose_the_config, "bad_model"),
        (change_the_config(hidden_size=-64), "config.json says hidden_size = -64, which is no size"),
        (change_the_config(hidden_size="64"), "bad_model: config.json says hidden_size = '64'"),
        (change_the_config(num_hidden_layers=0), "bad_model: config.json says num_hidden_layers = 0"),
        (change_the_config(num_attention_heads=7), WRONG_HEADS),
        (change_the_config(model_type="banana"), "unsupported: the architecture 'banana' is not known"),
        (change_the_config(model_type="vit"), "unsupported: the architecture 'vit' is not a causal"),
        (
            change_the_config(model_type="chatglm", auto_map={"AutoModelForCausalLM": "modeling.Evil"}),
            "--trust-remote-code",
        ),
    ],
)
def test_a_model_that_cannot_be_told_is_a_failed_run_too(
    generate: CommandLine, tiny_llama: Path, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(tiny_llama, directory)
    damage(directory)
    done = generate(directory, "--json")
    assert done.code == 1
    assert words in done.error_line
    assert done.records[0]["status"] in ("bad_model", "unsupported")


def test_weights_that_are_no_numbers_are_told_where_no_prompt_meets_them(
    generate: CommandLine, tiny_llama: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(tiny_llama, directory)
    change_the_config(tie_word_embeddings=False)(directory)
    tensors = load_file(directory / "model.safetensors")
    table = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = table.clone()
    # A token that neither the prompts nor the answers of this seed have.
    table[251] = float("nan")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (record,) = generate(directory, "--json").records
    (told,) = [line for line in record["warnings"] if "NaN or infinite values" in line]
    assert told.endswith("in 1 weights, first model.embed_tokens.weight")


def test_a_damaged_tokenizer_is_not_called_missing(
    generate: CommandLine, tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(tiny_llama, directory)
    (directory / "tokenizer.json").write_text("{}")
    for flags in (["--prompt", "hello"], ["--accuracy-only", "--acc-tasks", "lambada_smoke"]):
        done = generate(directory, *flags)
        assert (done.code, "has no tokenizer that can be loaded" in done.error_line) == (2, True)
        assert "the tokenizer of" in caplog.text


def test_weights_that_may_not_be_read(generate: CommandLine, tiny_llama: Path, tmp_path: Path) -> None:
    """The tests run as root, which may read all, so that the refusal is the kernel's for a directory."""
    directory = tmp_path / "model"
    shutil.copytree(tiny_llama, directory)
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors").mkdir()
    done = generate(directory)
    assert (done.code, "model.safetensors cannot be read: Is a directory" in done.error_line) == (1, True)


def test_pickles_are_loaded_only_when_allowed(
    generate: CommandLine, tiny_llama: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(tiny_llama, directory)
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    refused = generate(directory)
    assert refused.code == 2
    assert "--allow-pickle" in refused.error_line
    assert generate(directory, "--allow-pickle").code == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smolm2-135m", "did you mean smollm2-135m"),
        ("./nowhere", "no such directory: ./nowhere"),
        ("a/b/c", "no such directory: a/b/c"),
        ("bad name/x", "unknown model"),
        ("someone/unheard-of", "hub is out of reach"),
    ],
)
def test_a_model_that_is_not_there(generate: CommandLine, name: str, words: str) -> None:
    done = generate(name)
    assert done.code == 2
    assert words in done.error_line


class _Answer:
    """What the hub's errors carry of an HTTP answer."""

    headers: dict[str, str] = {}
    status_code = 404
    request = None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (GatedRepoError, "gated"),
        (RepositoryNotFoundError, "no model someone/unheard-of on the hub"),
        (LocalEntryNotFoundError, "--dummy-weights"),
    ],
)
def test_what_the_hub_refuses(
    generate: CommandLine, monkeypatch: pytest.MonkeyPatch, error: type[Exception], words: str
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        try:
            raise error("refused", response=_Answer())  # type: ignore[call-arg]
        except TypeError:
            raise error("refused") from None

    monkeypatch.setattr(source, "snapshot_download", refuse)
    done = generate("someone/unheard-of")
    assert done.code == 2
    assert words in done.error_line


def test_a_hub_model_is_fetched_with_only_what_it_needs(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def fetch(hub_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append({"id": hub_id, "revision": revision, "patterns": allow_patterns})
        return str(tiny_llama)

    monkeypatch.setattr(source, "snapshot_download", fetch)
    assert generate("someone/tiny", "--revision", "abc").code == 0
    assert {one["id"] for one in asked} == {"someone/tiny"}
    assert {one["revision"] for one in asked} == {"abc"}
    patterns = {pattern for one in asked for pattern in one["patterns"]}
    assert "*.safetensors" in patterns
    assert not patterns & {"*.bin", "*.py", "*"}
