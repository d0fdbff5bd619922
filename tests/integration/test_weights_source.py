"""From a name to weights: what counts as the checkpoint, and what each defect of it is called."""

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.conftest import CommandLine
from xpubench.errors import RunFailure, UserError
from xpubench.spec import Subject
from xpubench.weights import embedded, source
from xpubench.weights.dummy import build_dummy
from xpubench.weights.pretrained import load_pretrained, load_tokenizer
from xpubench.weights.source import Source, read_config, source_of, weight_files

WEIGHT = "model.layers.1.mlp.up_proj.weight"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def found(model: object, *, allow_pickle: bool = False, trust_remote_code: bool = False) -> Source:
    wanted = Subject(
        model=str(model),
        device="cpu",
        dtype="float32",
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
    )
    return source_of(wanted)


def loaded(model: object, *, allow_pickle: bool = False, dtype: str = "float32") -> tuple[Any, Any]:
    pretrained, tokenizer, _ = load_pretrained(
        found(model, allow_pickle=allow_pickle),
        dtype=dtype,
        device="cpu",
        trust_remote_code=False,
        allow_pickle=allow_pickle,
    )
    return pretrained, tokenizer


@pytest.fixture
def checkpoint(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def change_config(directory: Path, **fields: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def failure_of(call: Callable[..., object], *arguments: Any, **more: Any) -> tuple[str, str]:
    with pytest.raises(RunFailure) as raised:
        call(*arguments, **more)
    assert "\n" not in raised.value.message
    return raised.value.failure_class, raised.value.message


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_asked_precision_and_nothing_else(
    tiny_llama: Path, dtype: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = loaded(tiny_llama, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    assert not model.training
    assert tokenizer is None
    assert capfd.readouterr() == ("", "")


def test_shards_and_tied_weights_are_whole(checkpoint: Path) -> None:
    model, _ = loaded(checkpoint)
    model.save_pretrained(checkpoint / "sharded", max_shard_size="100KB")
    assert len(list((checkpoint / "sharded").glob("*.safetensors"))) > 1
    again, _ = loaded(checkpoint / "sharded")
    assert torch.equal(again.state_dict()[WEIGHT], model.state_dict()[WEIGHT])

    # Saved again in one file, the index stays. transformers loads that file, beside shards too.
    (shard,) = (checkpoint / "sharded").glob("model-00001-*.safetensors")
    other = shard.read_bytes()
    model.save_pretrained(checkpoint / "sharded")
    assert (checkpoint / "sharded" / "model.safetensors.index.json").exists()
    for _ in range(2):
        assert weight_files(checkpoint / "sharded") == [checkpoint / "sharded" / "model.safetensors"]
        loaded(checkpoint / "sharded")
        shard.write_bytes(other)

    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(checkpoint / "tied")
    tied, _ = loaded(checkpoint / "tied")
    assert tied.lm_head.weight is tied.get_input_embeddings().weight


def test_files_beside_the_checkpoint_are_not_it(checkpoint: Path) -> None:
    (checkpoint / "consolidated.safetensors").write_bytes(b"")
    loaded(checkpoint)
    (checkpoint / "model.safetensors").rename(checkpoint / "other.safetensors")
    (checkpoint / "training_args.bin").write_bytes(b"")
    failure_class, message = failure_of(found, checkpoint)
    assert failure_class == "bad_model"
    assert "model.safetensors" in message


def with_header(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def one_tensor(**fields: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]} | fields}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        bytes(999),
        b"<html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 538090408\n",
        (1 << 40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"\xff\xfe",
        with_header([]),
        with_header(None),
        with_header({"a": {"dtype": "F32", "shape": [3]}}, bytes(12)),
        with_header(one_tensor(data_offsets="0-12"), bytes(12)),
        with_header(one_tensor(shape=[4]), bytes(12)),
        with_header(one_tensor(dtype="F31"), bytes(12)),
        with_header(one_tensor(data_offsets=[4, 16]), bytes(16)),
        with_header(one_tensor() | {"two\nlines": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}),
        with_header(one_tensor(), bytes(11)),
        with_header(one_tensor(), bytes(13)),
    ],
    ids=lambda content: f"{len(content)}-{content[:24]!r}",
)
@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
def test_a_broken_safetensors_file(checkpoint: Path, content: bytes, sharded: bool) -> None:
    name = "model.safetensors"
    if sharded:
        name, whole = "model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors"
        (checkpoint / "model.safetensors").rename(checkpoint / whole)
        shards = {"weight_map": {"a": whole, "b": name}}
        (checkpoint / "model.safetensors.index.json").write_text(json.dumps(shards))
    (checkpoint / name).write_bytes(content)
    failure_class, message = failure_of(found, checkpoint)
    assert failure_class == "bad_model"
    assert f"{checkpoint / name} is not a whole safetensors file ({len(content)} bytes)" in message


def test_a_safetensors_file_of_no_tensors_and_one_of_one_are_whole(checkpoint: Path) -> None:
    for content in (with_header({"__metadata__": {"format": "pt"}}), with_header(one_tensor(), bytes(12))):
        (checkpoint / "model.safetensors").write_bytes(content)
        assert found(checkpoint).directory == checkpoint


def test_a_directory_in_the_place_of_the_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors").mkdir()
    failure_class, message = failure_of(found, checkpoint)
    assert failure_class == "bad_model"
    assert "model.safetensors cannot be read" in message


@pytest.mark.parametrize("weight_map", [[], None, {"a": 3}, {}])
def test_an_index_without_sense(checkpoint: Path, weight_map: object) -> None:
    (checkpoint / "model.safetensors").unlink()
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert failure_of(found, checkpoint)[0] == "bad_model"


@pytest.mark.parametrize(
    ("fields", "failure_class"),
    [
        ({"model_type": None}, "bad_model"),
        ({"model_type": ["llama"]}, "bad_model"),
        ({"model_type": "banana", "auto_map": None}, "unsupported"),
    ],
)
def test_a_config_without_an_architecture(
    checkpoint: Path, fields: dict[str, Any], failure_class: str
) -> None:
    change_config(checkpoint, **fields)
    assert failure_of(found, checkpoint)[0] == failure_class


@pytest.mark.parametrize("fields", [{"hidden_size": "abc"}, {"num_attention_heads": 5}])
def test_a_config_of_values_without_sense(checkpoint: Path, fields: dict[str, Any]) -> None:
    change_config(checkpoint, **fields)
    assert failure_of(loaded, checkpoint)[0] == "bad_model"


def test_code_from_the_hub_passes_only_when_trusted(checkpoint: Path) -> None:
    change_config(checkpoint, model_type="banana", auto_map={"AutoModelForCausalLM": "code.Model"})
    assert "--trust-remote-code" in failure_of(found, checkpoint)[1]
    assert found(checkpoint, trust_remote_code=True).config["model_type"] == "banana"


def test_weights_of_another_shape(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change_weights(checkpoint, lambda tensors: tensors.update({WEIGHT: torch.zeros(3, 5)}))
    failure_class, message = failure_of(loaded, checkpoint)
    assert failure_class == "bad_model"
    assert "another shape" in message
    assert capfd.readouterr().err == ""


def test_weights_without_a_place_are_warned_about(generate: CommandLine, checkpoint: Path) -> None:
    change_weights(checkpoint, lambda tensors: tensors.update({"extra.weight": torch.ones(2)}))
    (record,) = generate(checkpoint, "--json").records
    assert record["status"] == "ok"
    assert any("1 weights that the model has no place for" in warning for warning in record["warnings"])


def test_layers_that_the_config_does_not_ask_for_are_warned_about(
    generate: CommandLine, checkpoint: Path
) -> None:
    change_config(checkpoint, num_hidden_layers=1)
    (record,) = generate(checkpoint, "--json").records
    assert any("no place for, first model.layers.1." in warning for warning in record["warnings"])


def test_a_broken_pickle(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(b"no pickle")
    assert failure_of(loaded, checkpoint, allow_pickle=True)[0] == "bad_model"


def test_a_broken_tokenizer_is_warned_about(generate: CommandLine, checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").write_text("{")
    (checkpoint / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (record,) = generate(checkpoint, "--json").records
    assert any("tokenizer" in warning and "cannot be loaded" in warning for warning in record["warnings"])


@pytest.mark.parametrize("name", ["~nobody-of-that-name/x", "/nowhere", "~/nowhere-at-all"])
def test_paths_that_lead_nowhere(name: str) -> None:
    with pytest.raises(UserError, match="no such directory"):
        found(name)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Exception("a transport's own error"), "out of reach"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_a_download_that_fails(monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(source, "snapshot_download", fail)
    with pytest.raises(UserError, match=words):
        found("someone/something")
    with pytest.raises(UserError, match=words):
        read_config("someone/something", revision=None, trust_remote_code=False)


def test_a_model_of_the_hub_knows_its_commit(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = shutil.copytree(tiny_llama, tmp_path / "snapshots" / COMMIT)
    monkeypatch.setattr(source, "snapshot_download", lambda *_, **__: str(snapshot))
    assert found("someone/something").revision == COMMIT
    assert found(tiny_llama).revision is None


def test_pickles_of_the_hub_are_fetched_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def fetch(hub_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    monkeypatch.setattr(source, "snapshot_download", fetch)
    found("someone/something", allow_pickle=True, trust_remote_code=True)
    assert ["*.bin" in patterns for patterns in asked] == [False, True]
    assert all("*.py" in patterns for patterns in asked)


def test_the_hub_with_one_bin_file_names_the_flag(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the flag the .bin file is not downloaded, and no index names it."""
    snapshot = tmp_path / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    shutil.copy(tiny_llama / "config.json", snapshot)
    monkeypatch.setattr(source, "snapshot_download", lambda *_, **__: str(snapshot))
    with pytest.raises(UserError, match="--allow-pickle downloads"):
        found("someone/something")
    assert "holds no weights" in failure_of(found, "someone/something", allow_pickle=True)[1]
    # Several files have an index, which is downloaded.
    (snapshot / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model-1.bin"}}')
    with pytest.raises(UserError, match="holds only"):
        found("someone/something")


def test_dummy_weights_name_their_class_and_heed_the_spread() -> None:
    fields = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "vocab_size": 512,
        "initializer_range": 0.05,
    }
    model = build_dummy(fields, dtype="float16", device="cpu", seed=0)
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.generation_config is not None
    assert float(model.lm_head.weight.detach().float().std()) == pytest.approx(0.05, rel=0.1)
    assert failure_of(build_dummy, {"model_type": "banana"}, dtype="float32", device="cpu", seed=0)[0] == (
        "unsupported"
    )


def test_the_embedded_model_is_converted_quietly_and_names_the_tokens_that_begin_and_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.INFO, logger="xpubench"):
        directory = embedded.smollm2_directory()
    assert capfd.readouterr() == ("", "")
    assert ["converting" in record.getMessage() for record in caplog.records] == [True]
    assert os.listdir(tmp_path / "xpubench") == [directory.name]
    # What transformers' own conversion of the file gave, too.
    weights = (directory / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest().startswith("a672150fb4f99d7c8f4168cecdd46406")
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert model.generation_config.eos_token_id == 2
    assert not hasattr(model.config, "quantization_config")
    tokenizer = load_tokenizer(directory, trust_remote_code=False)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert (tokenizer.pad_token, tokenizer.unk_token) == ("<|im_end|>", "<|endoftext|>")


def test_callers_at_once_share_one_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(gguf_path: Path, directory: Path) -> None:
        time.sleep(0.1)
        (directory / "config.json").write_text("{}")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(embedded, "_convert", convert)
    results: list[Path] = []
    threads = [threading.Thread(target=lambda: results.append(embedded.smollm2_directory())) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert os.listdir(tmp_path / "xpubench") == [results[0].name]
    assert os.listdir(results[0]) == ["config.json"]


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(gguf_path: Path, directory: Path) -> None:
        (directory / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(embedded, "_convert", fail)
    with pytest.raises(KeyboardInterrupt):
        embedded.smollm2_directory()
    assert os.listdir(tmp_path / "xpubench") == []
