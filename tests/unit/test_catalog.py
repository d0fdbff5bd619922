"""The catalog's data and its lookup."""

import pytest

from xpubench import catalog
from xpubench.catalog.architecture import Architecture
from xpubench.errors import UserError

# Counted by transformers on its meta device.
PARAMETERS = {
    "smollm2-135m": 134_515_008,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Llama-2-13b-hf": 13_015_864_320,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "meta-llama/Meta-Llama-3-70B": 70_553_706_496,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-3.3-70B-Instruct": 70_553_706_496,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "microsoft/Phi-3-mini-128k-instruct": 3_821_079_552,
    "microsoft/Phi-3.5-mini-instruct": 3_821_079_552,
    "mistralai/Mistral-7B-Instruct-v0.2": 7_241_732_096,
    "EleutherAI/gpt-j-6b": 6_050_882_784,
    "Qwen/Qwen2-7B": 7_615_616_512,
    "Qwen/Qwen2-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "facebook/opt-6.7b": 6_658_473_984,
    "facebook/opt-30b": 29_974_540_288,
    "bigscience/bloom-7b1": 7_069_016_064,
    "bigscience/bloom": 176_247_271_424,
    "THUDM/glm-4-9b": 9_399_951_360,
    "baichuan-inc/Baichuan2-13B-Chat": 13_896_668_160,
}


def test_the_catalog_holds_every_validated_model_with_its_exact_size() -> None:
    counted = {one.id: Architecture.from_config(one.config()).parameter_count for one in catalog.models()}
    assert counted == PARAMETERS


@pytest.mark.parametrize("name", ["META-LLAMA/llama-2-7B-hf", "llama-2-7b-hf"])
def test_models_are_found_in_any_case_and_without_organisation(name: str) -> None:
    assert catalog.model(name).id == "meta-llama/Llama-2-7b-hf"


def test_an_unknown_model_answers_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"did you mean.*Qwen3-8B"):
        catalog.model("Qwen/Qwen3-8b-chat")


def test_an_unknown_device_lists_the_known() -> None:
    with pytest.raises(UserError, match="max-1550"):
        catalog.device("zzz")


@pytest.mark.parametrize(
    ("reported", "gib", "expected"),
    [
        ("Intel(R) Data Center GPU Max 1550", 128, "max-1550"),
        ("Intel(R) Data Center GPU Max 1550", 64, "max-1550-tile"),
        ("Intel(R) Arc(TM) B580 Graphics", 12, "b580"),
        ("Intel(R) Arc(TM) 140V GPU (16GB)", 16, "core-ultra-258v"),
        ("Intel(R) Arc(TM) B570 Graphics", 10, "b570"),
        ("Intel(R) Arc(TM) Pro B50 Graphics", 16, "b50"),
        ("Intel(R) Arc(TM) Pro B60 Graphics", 24, "b60"),
        ("Intel(R) Arc(TM) Pro B70 Graphics", 32, "b70"),
        ("Intel(R) Arc(TM) A770 Graphics", 16, "a770"),
        ("Intel(R) Arc(TM) A770 Graphics", 8, "a770-8gb"),
        # A driver reports less than the whole memory.
        ("Intel(R) Arc(TM) A770 Graphics", 7, "a770-8gb"),
        ("Intel(R) Arc(TM) A770 Graphics", 15, "a770"),
        ("Intel(R) Arc(TM) A770 Graphics", None, None),
        ("Intel(R) Arc(TM) A750 Graphics", 8, "a750"),
        # The mobile one is another device.
        ("Intel(R) Arc(TM) A770M Graphics", 16, None),
        ("Intel(R) Data Center GPU Flex 170", 16, None),
        ("NVIDIA H200", 139, "h200"),
        ("Intel(R) Arc(TM) Graphics [0x64a0]", None, "core-ultra-258v"),
        ("Intel(R) Data Center GPU Max 1550", None, None),
        ("AMD EPYC", 24, None),
    ],
)
def test_a_device_is_known_by_what_its_driver_reports(
    reported: str, gib: int | None, expected: str | None
) -> None:
    found = catalog.identify_device(reported, gib and gib * 2**30)
    assert (found.id if found else None) == expected


def test_status() -> None:
    assert catalog.status_of("Qwen/Qwen3-4B", "qwen3") == "validated"
    assert catalog.status_of("codellama/CodeLlama-7b-hf", "llama") == "family"
    assert catalog.status_of("smollm2-135m", "llama") == "embedded"
    assert catalog.status_of("google/gemma-2b", "gemma") == "unknown"


def test_an_architecture_that_only_the_hub_has_cannot_be_built() -> None:
    with pytest.raises(UserError, match="--trust-remote-code"):
        catalog.model("baichuan-inc/Baichuan2-13B-Chat").native_config()


@pytest.mark.parametrize("sizes", [{"num_attention_heads": 0}, {"hidden_size": None}, {"hidden_size": "x"}])
def test_a_config_of_impossible_sizes_is_told_in_one_line(sizes: dict[str, object]) -> None:
    config = catalog.model("meta-llama/Llama-3.2-1B").config() | {"head_dim": None} | sizes
    with pytest.raises(UserError, match="llama"):
        Architecture.from_config(config)


def test_glm_4_by_the_names_of_its_own_code() -> None:
    theirs = {
        "model_type": "chatglm",
        "padded_vocab_size": 151552,
        "hidden_size": 4096,
        "ffn_hidden_size": 13696,
        "num_layers": 40,
        "num_attention_heads": 32,
        "multi_query_group_num": 2,
        "kv_channels": 128,
        "seq_length": 8192,
        "add_qkv_bias": True,
        "tie_word_embeddings": False,
    }
    assert Architecture.from_config(theirs).parameter_count == PARAMETERS["THUDM/glm-4-9b"]
    assert catalog.status_of("/models/glm", "chatglm") == "family"
