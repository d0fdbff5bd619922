"""Bytes and roofline times, against arithmetic done by hand."""

from typing import Any

import msgspec
import pytest

from xpubench import catalog
from xpubench.catalog.architecture import Architecture
from xpubench.expectation import step_work
from xpubench.plan import Plan, decode_bytes_per_step, plan_of, stored_weights
from xpubench.runtimes.llama_cpp.options import LlamaCppOptions
from xpubench.runtimes.openvino.options import OptimumOptions, WeightFormat
from xpubench.runtimes.pytorch.options import PyTorchOptions
from xpubench.runtimes.registry import Options
from xpubench.spec import Dtype, Protocol, Quantization, RunSpec, Subject, Workload

LLAMA_2_7B = Architecture.from_config(catalog.model("meta-llama/Llama-2-7b-hf").config())


def plan(
    device: str | None = "max-1550",
    recipe: Quantization | None = None,
    dtype: Dtype = "float16",
    **changes: int,
) -> Plan:
    subject = Subject(model="llama", device="xpu", dtype=dtype, quantization=recipe)
    shape: dict[str, Any] = {"input_tokens": 1024, "new_tokens": 128} | changes
    workload = Workload(**shape)
    spec = RunSpec(subject=subject, workload=workload, protocol=Protocol())
    found = plan_of(LLAMA_2_7B, spec, catalog.device(device) if device else None)
    assert found is not None
    return found


def test_weights_and_kv_cache() -> None:
    found = plan()
    assert found.weight_bytes == 2 * 6_738_415_616
    # 32 layers, keys and values of 4,096 values, 2 bytes, 1,152 positions
    assert found.kv_cache_bytes == 2 * 32 * 4096 * 2 * 1152
    assert plan(batch_size=2, num_beams=4).kv_cache_bytes == 8 * found.kv_cache_bytes


@pytest.mark.parametrize(
    ("dtype", "weight_format", "bytes_each"),
    [("float32", None, 4), ("bfloat16", None, 2), ("bfloat16", "int8", 1), ("float32", "int4", 0.5)],
)
def test_an_export_that_is_yet_to_be_made(
    dtype: Dtype, weight_format: WeightFormat | None, bytes_each: float
) -> None:
    options = OptimumOptions(weight_format=weight_format)
    subject = Subject(model="llama", device="cpu", dtype=dtype, options=options)
    assert stored_weights(LLAMA_2_7B, subject).weights == bytes_each * 6_738_415_616


@pytest.mark.parametrize(
    ("fields", "matrix_bits", "head_bits"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 4, 4),
        ({"quant_method": "awq", "w_bit": 8}, 8, 8),
        # The fewest bits of any matrix.
        (
            {"quant_method": "auto-round", "bits": 4, "extra_config": {"model.layers.0.mlp": {"bits": 2}}},
            2,
            2,
        ),
        ({"config_groups": {"group_0": {"weights": {"num_bits": 4}}}}, 4, 4),
        # A method that names no bits may have any.
        ({"quant_method": "other"}, 1, 1),
        (None, 16, 16),
    ],
)
def test_a_quantized_checkpoint_has_the_bits_of_its_config(
    fields: dict[str, Any] | None, matrix_bits: int, head_bits: int
) -> None:
    config = catalog.model("meta-llama/Llama-2-7b-hf").config() | {"quantization_config": fields}
    subject = Subject(model="llama", device="xpu", dtype="float16")
    found = stored_weights(Architecture.from_config(config), subject)
    table, norms = 32_000 * 4096, 65 * 4096
    matrices = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11_008)
    step = matrices * matrix_bits // 8 + table * head_bits // 8 + 2 * norms
    assert (found.weights, found.step) == (step + 2 * table, step)
    # Its shape alone has random weights in the dtype.
    dummy = msgspec.structs.replace(subject, weights="dummy")
    assert stored_weights(Architecture.from_config(config), dummy).weights == 2 * 6_738_415_616


def test_a_cache_counts_with_the_fewest_bytes_that_its_runtime_may_take() -> None:
    def cache(options: Options) -> int:
        subject = Subject(model="/no/such/model", device="cpu", dtype="float32", options=options)
        workload = Workload(input_tokens=100, new_tokens=28)
        found = plan_of(LLAMA_2_7B, RunSpec(subject=subject, workload=workload, protocol=Protocol()), None)
        assert found is not None
        return found.kv_cache_bytes

    values = 128 * LLAMA_2_7B.kv_values_per_token
    assert cache(PyTorchOptions()) == 4 * values
    # The default of a CPU.
    assert cache(OptimumOptions()) == values
    assert cache(OptimumOptions(kv_cache_precision="f16")) == 2 * values
    assert cache(OptimumOptions(config={"VALUE_CACHE_PRECISION": "u4"})) == values / 2
    assert cache(LlamaCppOptions()) == 2 * values
    assert cache(LlamaCppOptions(cache_type_k="q8_0", cache_type_v="iq4_nl")) == 0.75 * values


def test_grouped_queries_shrink_the_kv_cache() -> None:
    llama_3_8b = Architecture.from_config(catalog.model("meta-llama/Meta-Llama-3-8B").config())
    assert 4 * llama_3_8b.kv_values_per_token == LLAMA_2_7B.kv_values_per_token


def test_ranks_share_a_model() -> None:
    whole, half = LLAMA_2_7B, LLAMA_2_7B.part(2)
    # Norms and the token table are whole on each.
    matrices = 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096
    assert whole.parameter_count - half.parameter_count == matrices // 2
    assert 2 * half.kv_values_per_token == whole.kv_values_per_token
    # As AutoTP has shared them in a run: 9 heads with 3 key-value heads, and the output head in grains of 64.
    config = catalog.model("smollm2-135m").config()
    assert Architecture.from_config(config).part(2).parameter_count * 4 == 406_332_672


def test_a_decoding_step_reads_weights_and_cache() -> None:
    found = plan()
    per_token = 2 * 32 * 4096 * 2
    # All but the input embedding; 127 steps that read 1,024 to 1,150 cached positions, 1,087 on average.
    assert found.step_bytes == 2 * (6_738_415_616 - 32000 * 4096) + 1087 * per_token
    assert found.roofline_next_token_ms == pytest.approx(found.step_bytes / 3277e9 * 1e3)


def test_a_mixture_reads_the_experts_that_it_takes() -> None:
    """Mixtral-8x7B by its config: 46.7 billion parameters, of which a token takes 12.9."""
    mixtral = Architecture.from_config(
        {
            "model_type": "mixtral",
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "tie_word_embeddings": False,
        }
    )
    assert mixtral.parameter_count == 46_702_792_704
    taken = mixtral.step_share(1) * mixtral.step_weight_parameters
    assert taken + 32000 * 4096 == pytest.approx(12_879_925_248)
    workload = Workload(input_tokens=1, new_tokens=1)
    step = decode_bytes_per_step(mixtral, workload, 0, 2 * mixtral.step_weight_parameters, kv_value_bytes=2)
    assert step == pytest.approx(2 * taken)
    # A step of 8 sequences reads nearly all experts, and each sequence computes with its own two.
    assert mixtral.product_flop(sequences=8, tokens=1) == pytest.approx(8 * 2 * taken)
    work = step_work(mixtral, Workload(input_tokens=1, new_tokens=1, batch_size=8), 1, 10**9, 2)
    assert work.flop == mixtral.product_flop(sequences=8, tokens=1)
    flop = mixtral.prefill_flop(sequences=1, tokens=128)
    assert flop == pytest.approx(2 * 128 * 12.6e9, rel=0.05)


def test_one_new_token_has_no_later_step_to_grow_for() -> None:
    workload = Workload(input_tokens=10, new_tokens=1)
    step = decode_bytes_per_step(LLAMA_2_7B, workload, 10, 0, kv_value_bytes=2)
    assert step == 10 * 2 * 32 * 4096 * 2


def test_a_long_prompt_is_bound_by_compute_and_a_short_one_by_memory() -> None:
    long, short = plan(), plan(input_tokens=4)
    assert (long.first_token_bound, short.first_token_bound) == ("compute", "memory")
    # 2 operations a weight and token, and the attention on top
    dense = 2 * 32 * (4 * 4096**2 + 3 * 4096 * 11008) * 1024
    assert dense < long.prefill_flop < 1.1 * dense
    assert short.roofline_first_token_ms == pytest.approx(2 * 6_607_343_616 / 3277e9 * 1e3, rel=1e-3)


def test_no_bound_of_the_first_token_without_a_peak_for_the_precision() -> None:
    found = plan(dtype="float32")
    assert found.roofline_first_token_ms is None
    assert found.roofline_next_token_ms == pytest.approx(found.step_bytes / 3277e9 * 1e3)


def test_what_does_not_fit() -> None:
    assert plan("max-1550").fits is True
    assert plan("b580").fits is False
    assert plan(None).fits is None
    assert plan(None).roofline_next_token_ms is None


def test_the_published_latency_is_above_the_bound() -> None:
    """Published for one tile of a Max 1550: 17 ms a token, greedy, 1,024 in, 128 out, batch 1."""
    bound = plan("max-1550-tile").roofline_next_token_ms
    assert bound is not None
    assert 0.4 < bound / 17 < 1


def test_int4_weights_take_4_and_a_quarter_bits_and_the_tables_8() -> None:
    float16 = plan()
    tables = 2 * 32_000 * 4096
    matrices = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11_008)
    norms = 65 * 4096
    found = plan(recipe=Quantization())
    assert found.weight_bytes == matrices * 4.25 / 8 + tables + 2 * norms
    assert float16.step_bytes - found.step_bytes == matrices * (16 - 4.25) / 8 + tables / 2
    high = plan(recipe=Quantization(head="high"))
    assert high.weight_bytes == found.weight_bytes + tables
    assert high.kv_cache_bytes == found.kv_cache_bytes == float16.kv_cache_bytes
