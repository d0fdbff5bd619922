"""The settings of exports and their tokenizers, on tiny models."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openvino_genai")

from tests.conftest import CommandLine  # after the check that there is something to test
from tests.openvino.models import RUNTIMES, TEXTS, save_model, save_tokenizer
from xpubench.runtimes.openvino.tokenizer import ir_tokenizer
from xpubench.runtimes.openvino.tokenizer_export import compared, write_tokenizer_irs

# Groups that divide the rows of the tiny model's matrices.
GROUPS = ("--weight-format", "int4", "--group-size", 32)


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a tokenizer."""
    model = save_model(tmp_path_factory.mktemp("speaker"), "llama", vocab_size=320)
    save_tokenizer(model)
    return model


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS * 4))
    return path


def exported(xpubench: CommandLine, model: Path, out: Path, *flags: object) -> dict[str, Any]:
    """The recipe of an export, with the bytes of its weights."""
    done = xpubench("export", model, out, *flags)
    assert done.code == 0, done.err
    kept: dict[str, Any] = json.loads((out / "xpubench_recipe.json").read_text())
    return kept | {"bytes": (out / "openvino_model.bin").read_bytes(), "said": done.err}


def test_calibrated_exports(
    xpubench: CommandLine, generate: CommandLine, speaker: Path, data: Path, tmp_path: Path
) -> None:
    """AWQ, scale estimation and GPTQ each change the weights, and run."""
    plain = exported(xpubench, speaker, tmp_path / "plain", *GROUPS)
    seen = {plain["bytes"]}
    for way in ("awq", "scale_estimation", "gptq"):
        flags = (*GROUPS, f"--{way.replace('_', '-')}", "--dataset", data, "--num-samples", 8)
        kept = exported(xpubench, speaker, tmp_path / way, *flags)
        assert kept["recipe"][way] is True
        assert kept["recipe"]["dataset"] == str(data)
        assert kept["bytes"] not in seen
        seen.add(kept["bytes"])
    done = generate(tmp_path / "gptq", "--runtime", "openvino-base", "--json")
    assert done.code == 0, done.err
    assert done.records[0]["runtime"]["stored"] == "int4"
    assert done.records[0]["runtime"]["ir"]["recipe"]["gptq"] is True


def test_the_settings_of_optimum_for_a_known_model(xpubench: CommandLine, tmp_path: Path) -> None:
    """Optimum knows a model by its directory's name too; a flag replaces all of its settings, as in
    optimum-cli."""
    model = save_model(tmp_path / "opt-6.7b", "opt", ffn_dim=128)
    kept = exported(xpubench, model, tmp_path / "known", "--weight-format", "int4")
    assert kept["recipe"] == {
        "model": str(model),
        "weight_format": "int4",
        "group_size": 64,
        "ratio": 0.8,
        "predefined": str(model),
    }
    assert "with Optimum's settings for" in kept["said"]
    own = exported(xpubench, model, tmp_path / "own", "--weight-format", "int4", "--ratio", 1)
    assert own["recipe"] == {
        "model": str(model),
        "weight_format": "int4",
        "group_size": 64,
        "ratio": 1.0,
    }
    assert own["bytes"] != kept["bytes"]


def test_settings_of_optimum_whose_data_is_not_here(
    xpubench: CommandLine, speaker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    (tmp_path / "dolly-v2-3b").symlink_to(speaker)
    done = xpubench("export", tmp_path / "dolly-v2-3b", tmp_path / "ir", "--weight-format", "int4")
    assert done.code == 2
    assert "they are Optimum's" in done.error_line
    assert "dataset wikitext2" in done.error_line
    assert not (tmp_path / "ir").exists()


def test_a_line_of_optimum_cli(xpubench: CommandLine, speaker: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "ir"
    line = (
        *("-m", speaker, "--task", "text-generation-with-past", "--framework", "pt"),
        *("--weight-format", "int4", "--ratio", 0.5, "--sym", "--group-size", 128),
        *("--group-size-fallback", "adjust", "--backup-precision", "int8_sym", "--all-layers"),
        *("--sensitivity-metric", "mean_activation_variance", "--dataset", data, "--num-samples", 4, out),
    )
    done = xpubench("export", *line)
    assert done.code == 0, done.err
    kept = json.loads((out / "xpubench_recipe.json").read_text())
    assert kept["recipe"] == {
        "model": str(speaker),
        "weight_format": "int4",
        "sym": True,
        "ratio": 0.5,
        "group_size": 128,
        "group_size_fallback": "adjust",
        "backup_precision": "int8_sym",
        "all_layers": True,
        "sensitivity_metric": "mean_activation_variance",
        "dataset": str(data),
        "num_samples": 4,
    }


def test_the_tokenizer_of_an_export_is_compared_and_used(
    xpubench: CommandLine, generate: CommandLine, speaker: Path, tmp_path: Path
) -> None:
    ir = tmp_path / "ir"
    kept = exported(xpubench, speaker, ir, "--weight-format", "fp32")
    check = kept["tokenizer_check"]
    assert (check["texts"], check["other_ids"], check["other_texts"]) == (320, 0, 0)
    prompt = ("--prompt", "the river runs down", "--json")
    expected = generate(speaker, *prompt).records[0]["output"]
    for runtime in RUNTIMES:
        (record,) = generate(ir, "--runtime", runtime, *prompt).records
        assert record["output"] == expected, runtime
        own = runtime != "openvino"
        assert record["runtime"]["tokenizer"] == ("openvino" if own else "transformers")
        for one in record["samples"]["iterations"]:
            assert one["tokenize_ns"] > 0
            assert one["detokenize_ns"] > 0
        assert not any("tokenizer" in warning for warning in record["warnings"])


def test_a_tokenizer_that_becomes_another_one(
    xpubench: CommandLine, generate: CommandLine, speaker: Path, tmp_path: Path
) -> None:
    """The texts of the check tell tokenizers apart, a run says what they told, and it goes by the IR."""
    from transformers import AutoTokenizer

    ir = tmp_path / "ir"
    kept = exported(xpubench, speaker, ir, "--weight-format", "fp32")
    prompt = ("--prompt", "the river runs down", "--runtime", "openvino-base", "--json")
    before = generate(ir, *prompt).records[0]["output"]
    right = AutoTokenizer.from_pretrained(speaker)
    other = AutoTokenizer.from_pretrained(speaker)
    other.backend_tokenizer.pre_tokenizer.add_prefix_space = True
    write_tokenizer_irs(other, ir)
    tokenizer = ir_tokenizer(ir)
    assert tokenizer is not None
    found = compared(tokenizer, right)
    assert 100 < found["other_ids"] <= 320
    recipe = {name: value for name, value in kept.items() if name not in ("bytes", "said")}
    (ir / "xpubench_recipe.json").write_text(json.dumps(recipe | {"tokenizer_check": found}))
    (record,) = generate(ir, *prompt).records
    told = f"of 320 texts {found['other_ids']} have other token ids"
    assert any(told in warning for warning in record["warnings"])
    assert record["output"] != before


def test_an_autoround_checkpoint(xpubench: CommandLine, tmp_path: Path) -> None:
    """With auto-round beside it, which is no part of the environment."""
    pytest.importorskip("auto_round", reason="the package auto-round is not installed")
    model = save_model(tmp_path / "speaker", "llama", vocab_size=320)
    save_tokenizer(model)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": f"{number} {' '.join(TEXTS)}"}) for number in range(40)))
    shape = ("--nsamples", 4, "--seqlen", 32, "--group_size", 32, "--iters", 2)
    flags = ("--algorithm", "autoround", "--dataset", texts, *shape)
    done = xpubench("quantize", model, tmp_path / "int4", *flags)
    assert done.code == 0, done.err
    done = xpubench("export", tmp_path / "int4", tmp_path / "ir")
    assert done.code == 1
    assert "unsupported: OpenVINO does not keep the auto-round weights" in done.error_line
    assert "export the float model" in done.error_line
    assert not (tmp_path / "ir").exists()
