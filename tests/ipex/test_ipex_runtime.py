"""The IPEX runtime on the real CPU build of IPEX, in its own environment (`make test-ipex`)."""

import inspect
from pathlib import Path
from typing import Any

import pytest

ipex = pytest.importorskip("intel_extension_for_pytorch")

from tests.conftest import CommandLine  # noqa: E402  # after the check that there is something to test
from xpubench.runtimes.ipex.runtime import optimized_blocks  # noqa: E402


@pytest.mark.parametrize("search", [["--greedy"], ["--num-beams", "4"]], ids=["greedy", "beams"])
@pytest.mark.parametrize("cache", [[], ["--use-static-cache"]], ids=["dynamic", "static"])
def test_optimized_tokens_are_those_of_plain_transformers(
    generate: CommandLine, smollm2: Path, search: list[str], cache: list[str]
) -> None:
    plain = generate(smollm2, *search, "--max-new-tokens", 8, "--json").records[0]
    done = generate(smollm2, "--ipex", *search, *cache, "--max-new-tokens", 8, "--json")
    assert done.code == 0
    (record,) = done.records
    assert record["runtime"]["ipex_optimized"] is True
    assert record["output"] == plain["output"]
    stamped = [one for one in record["samples"]["iterations"] if one["sync_policy"] == "every_token"]
    assert all(len(one["next_token_ns"]) == 7 for one in stamped)


def test_bfloat16_runs_under_autocast_and_stays_near_float32(generate: CommandLine, smollm2: Path) -> None:
    """On a CPU whose instructions IPEX needs for it; on another one it is unsupported, in one line."""
    done = generate(smollm2, "--ipex", "--dtype", "bfloat16", "--reference", "cpu-float32", "--json")
    (record,) = done.records
    flags = set(Path("/proc/cpuinfo").read_text().split())
    if not {"avx512bw", "avx512vl", "avx512dq"} <= flags and "avx_ne_convert" not in flags:
        assert (done.code, record["status"]) == (1, "unsupported")
        assert "IPEX computes no bfloat16 on this CPU" in record["failure"]["message"]
        assert "try --dtype float32" in record["failure"]["message"]
        return
    assert record["runtime"]["autocast"] is True
    assert record["divergence"]["top1_agreement"] > 0.9
    assert record["divergence"]["mean_kl"] < 0.05


def test_without_the_optimized_layers(generate: CommandLine, tiny_llama: Path) -> None:
    (record,) = generate(tiny_llama, "--ipex", "--disable_optimize_transformers", "--json").records
    assert record["status"] == "ok"
    assert record["runtime"]["ipex_optimized"] is False


def test_the_environment_is_set_and_recorded(
    generate: CommandLine, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_LLM_ALLREDUCE", "1")
    (record,) = generate(tiny_llama, "--ipex", "--json").records
    assert record["runtime"]["environment"] == {
        "SYCL_PI_LEVEL_ZERO_USE_IMMEDIATE_COMMANDLISTS": "2",
        "TORCH_LLM_ALLREDUCE": None,
    }


@pytest.fixture(scope="module")
def tiny_glm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that IPEX does not know and leaves as it is."""
    from transformers import GlmConfig, GlmForCausalLM

    config = GlmConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        pad_token_id=0,
        eos_token_id=[2],
    )
    directory = tmp_path_factory.mktemp("tiny-glm")
    GlmForCausalLM(config).save_pretrained(directory)
    return directory


def test_a_model_left_unoptimized_is_a_failure(generate: CommandLine, tiny_glm: Path) -> None:
    done = generate(tiny_glm, "--ipex", "--json")
    assert done.code == 1
    assert done.records[0]["status"] == "unsupported"
    assert "--allow-unoptimized" in done.error_line


def test_a_model_left_unoptimized_runs_when_allowed(generate: CommandLine, tiny_glm: Path) -> None:
    (record,) = generate(tiny_glm, "--ipex", "--allow-unoptimized", "--json").records
    assert record["status"] == "ok"
    assert record["runtime"]["ipex_optimized"] is False


def test_no_xpu_in_this_build(generate: CommandLine, tiny_llama: Path) -> None:
    done = generate(tiny_llama, "--ipex", "--device", "xpu")
    assert done.code == 2
    assert "no xpu device" in done.error_line


def test_the_calls_of_the_contract_fit_the_real_functions() -> None:
    """tests/contract replays these calls for xpu against doubles with these signatures."""
    optimize = inspect.signature(ipex.llm.optimize)
    optimize.bind(object(), dtype=None, device="xpu", inplace=True)
    inspect.signature(ipex.optimize).bind(object(), dtype=None, inplace=True)
    assert str(optimize) == (
        "(model, optimizer=None, dtype=torch.float32, inplace=False, device='cpu', quantization_config=None, "
        "qconfig_summary_file=None, low_precision_checkpoint=None, sample_inputs=None, deployment_mode=True, "
        "cache_weight_for_large_batch=False)"
    )
    assert optimized_blocks(object(), "cpu", 2) == 0  # type: ignore[arg-type]


def test_accuracy_is_that_of_plain_transformers(xpubench: CommandLine, smollm2: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")

    def items(*flags: str) -> tuple[dict[str, Any], list[float]]:
        done = xpubench(
            *("generate", "-m", smollm2, "--device", "cpu", "--dtype", "float32", "--accuracy-only"),
            *("--acc-tasks", "lambada_smoke", "--acc-iter", 8, "--results-dir", tmp_path, "--json", *flags),
        )
        assert done.code == 0
        (record,) = done.records
        return record, [item["loglikelihood"] for item in record["accuracy"]["items"]]

    plain, optimized = items(), items("--ipex")
    assert plain[0]["accuracy"]["scores_rows_alone"] is True
    assert optimized[0]["accuracy"]["scores_rows_alone"] is False
    assert optimized[0]["runtime"]["ipex_optimized"] is True
    assert optimized[1] == pytest.approx(plain[1], abs=1e-2)
