"""The command line without a model: help, lists, plans, and what is said of wrong flags."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, CommandLine
from xpubench.cli.main import COMMANDS

LIGHT = [
    ["run_generation.py", "--help"],
    ["-m", "xpubench", "--help"],
    ["-m", "xpubench", "models"],
    ["-m", "xpubench", "plan", "-m", "meta-llama/Llama-2-7b-hf", "--device", "max-1550"],
    ["-m", "xpubench", "generate", "-m", "m", "--num-beams", "0"],
]


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_light_commands_import_no_torch(arguments: list[str]) -> None:
    # -X importtime lists every import on standard error.
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "xpubench.cli.main" in imported
    assert not imported & {"torch", "transformers", "scipy", "numpy"}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(xpubench: CommandLine, command: str) -> None:
    done = xpubench(command, "--help")
    assert done.code == 0
    assert f"usage: xpubench {command}" in done.out


def test_the_list_of_models(xpubench: CommandLine) -> None:
    done = xpubench("models")
    assert done.code == 0
    assert "meta-llama/Llama-2-7b-hf" in done.out
    assert "6.74 B" in done.out
    rows = {row["id"]: row for row in json.loads(xpubench("models", "--json").out)}
    assert rows["facebook/opt-6.7b"]["int4"] is False
    assert rows["smollm2-135m"]["status"] == "embedded"


def test_a_plan_says_what_fits_and_how_fast_it_can_be(xpubench: CommandLine) -> None:
    done = xpubench("plan", "-m", "meta-llama/Llama-2-7b-hf", "--device", "max-1550")
    assert done.code == 0
    assert "13,476,831,232" in done.out
    assert "4.21" in done.out
    assert "Intel ARK" in done.out
    tight = xpubench("plan", "-m", "meta-llama/Llama-2-7b-hf", "--device", "b580")
    assert tight.code == 0
    assert "DO NOT FIT" in tight.out


def test_a_plan_of_a_local_config(xpubench: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 8}))
    assert "num_attention_heads" in xpubench("plan", "-m", tmp_path).error_line
    (tmp_path / "config.json").write_text("{")
    assert "config.json" in xpubench("plan", "-m", tmp_path).error_line


def test_no_plan_in_int4_of_experts_that_woq_does_not_quantize(xpubench: CommandLine, tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 128}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mixtral"} | sizes | heads | experts))
    assert xpubench("plan", "-m", tmp_path).code == 0
    done = xpubench("plan", "-m", tmp_path, "--woq")
    assert (done.code, "leave out --woq" in done.error_line, done.out) == (2, True, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no command"),
        (["modles"], "did you mean models"),
        (["generate"], "-m/--model-id"),
        (["generate", "-m", "m", "--device", "tpu"], "invalid choice: 'tpu'"),
        (["generate", "-m", "m", "--num-beams", "0"], "--num-beams must be at least 1"),
        (["generate", "-m", "m", "--prompt", "a", "--input-tokens", "8"], "--prompt"),
        (["generate", "-m", "m", "--prompt", "a", "--dummy-weights"], "--dummy-weights"),
        (["generate", "-m", "m", "--prompt", "\udcff"], "UTF-8"),
        (["generate", "-m", "m", "--batch-size", "auto"], "--accuracy-only"),
        (["plan", "-m", "/no/such/directory"], "no such directory"),
        (["generate", "-m", "m", "--num-iter", "3", "--num-warmup", "3"], "--num-iter 3"),
        (["generate", "-m", "m", "--input-tokens", "8", "0"], "--input-tokens must be at least 1"),
        (["generate", "-m", "m", "--batch-size", "two"], "must be a whole number from 1, or auto"),
        (["generate", "-m", "m", "--allow-unoptimized"], "--runtime ipex"),
        (["generate", "-m", "m", "--backend", "inductor"], "--torch-compile"),
        (["generate", "-m", "m", "--prompt", ""], "--prompt is empty"),
        (["generate", "-m", "m", "--profile_name", "../x"], "--profile_name"),
        (["generate", "-m", "m", "--seed", "-1"], "--seed"),
        (["generate", "-m", "m", "--results-dir", ""], "--results-dir: names no directory"),
        (["suite", "smoke", "--results-dir", ""], "--results-dir: names no directory"),
        (["compare", "--live", "-m m", "--results-dir", ""], "--results-dir: names no directory"),
        (["plan", "-m", "lama-2-7b-hf"], "did you mean meta-llama/Llama-2-7b-hf"),
        (["plan", "-m", "gpt-j-6b", "--device", "b850"], "b580"),
        (["plan", "-m", "gpt-j-6b", "--input-tokens", "4000"], "2048 positions"),
        (["plan", "-m", "smollm2-135m", "--tp-size", "4"], "at most 3 ranks"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_line_and_exit_code_2(
    xpubench: CommandLine, arguments: list[str], words: str
) -> None:
    done = xpubench(*arguments)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert words in done.error_line
    assert done.out == ""


def test_the_flags_of_the_guide_are_accepted() -> None:
    from xpubench.cli.generation import add_flags
    from xpubench.cli.main import Parser
    from xpubench.cli.options import specs_from
    from xpubench.runtimes.ipex.options import IpexOptions

    parser = Parser(prog="run_generation.py")
    add_flags(parser)
    line = (
        "--benchmark -m meta-llama/Llama-2-7b-hf --sub-model-name llama2-7b --use-static-cache --num-beam 4 "
        "--num-iter 10 --batch-size 1 --input-tokens 1024 --max-new-tokens 128 --device xpu --ipex "
        "--dtype float16 --token-latency --use-hf-code False --print-memory --disable-auto-cast"
    )
    (spec,) = specs_from(parser.parse_args(line.split()), "xpu")
    assert spec.subject.runtime == "ipex"
    assert spec.subject.options == IpexOptions(autocast=False)
    assert (spec.workload.num_beams, spec.workload.cache) == (4, "static")
    assert (spec.protocol.num_iter, spec.protocol.num_warmup) == (10, 3)
    (greedy,) = specs_from(parser.parse_args(["-m", "x", "--greedy", "--num-beams", "4"]), "cpu")
    assert greedy.workload.num_beams == 1
    (plain,) = specs_from(parser.parse_args(["-m", "x"]), "cpu")
    assert (plain.workload.input_tokens, plain.workload.new_tokens, plain.workload.num_beams) == (
        1024,
        128,
        4,
    )
    assert plain.subject.dtype == "bfloat16"


def test_several_values_give_every_combination() -> None:
    from xpubench.cli.generation import add_flags
    from xpubench.cli.main import Parser
    from xpubench.cli.options import specs_from

    parser = Parser()
    add_flags(parser)
    args = parser.parse_args(
        ["-m", "x", "--input-tokens", "8", "16", "8", "--num-beams", "1", "4", "--batch-size", "1", "2"]
    )
    specs = specs_from(args, "cpu")
    assert len(specs) == len({spec.id for spec in specs}) == 8
    assert len({spec.subject for spec in specs}) == 1
