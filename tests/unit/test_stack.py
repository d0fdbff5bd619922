"""Which stack a suite takes, from what is known of a machine, and the flags that this gives its runs."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.unit.test_doctor import GPU, IPEX, PACKAGES, TORCH, XPU_TORCH
from xpubench.cli.doctor import findings
from xpubench.cli.stack import AUTO, Choice, choose
from xpubench.errors import UserError
from xpubench.run.suite import command_lines, read_suite
from xpubench.runtimes.findings import Finding, MachineFacts

STACKS = ["ipex", "pytorch", "openvino"]


def machine(**changes: object) -> MachineFacts:
    """A machine with an Intel GPU, IPEX's xpu build and every other package, but for the changes."""
    return {
        "intel_gpus": [GPU],
        "level_zero": True,
        "torch": XPU_TORCH,
        "ipex": IPEX,
        "openvino": {"version": "2026.4.1", "devices": ["CPU"]},
        "packages": PACKAGES,
        "embedded_model": True,
        "mpirun": "/usr/bin/mpirun",
    } | changes


def chosen(
    facts: MachineFacts, asked: str = AUTO, flagged: str | None = None, device: str | None = None
) -> Choice:
    return choose(asked, STACKS, flagged, device, lambda: findings(facts))


def nobody_looks() -> Sequence[Finding]:
    raise AssertionError("nothing needs to be known of the machine")


def test_the_guides_stack_on_an_intel_gpu_with_it() -> None:
    assert chosen(machine()) == ("ipex", "IPEX 2.8.10+xpu is ready on this machine's GPU")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ipex": None}, "IPEX is not installed"),
        ({"ipex": IPEX | {"xpu_build": False, "xpu": False}}, "is built for the cpu alone"),
        ({"ipex": {"error": "does not import: misfit"}}, "misfit"),
        # Under WSL 2 the GPU has no render node.
        ({"ipex": None, "intel_gpus": []}, "IPEX is not installed"),
        ({"ipex": IPEX | {"xpu": False}, "intel_gpus": [], "torch": TORCH}, "no Intel GPU is visible"),
    ],
)
def test_stock_pytorch_elsewhere(changes: dict[str, object], why: str) -> None:
    runtime, reason = chosen(machine(**changes))
    assert runtime == "pytorch"
    assert why in reason


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_that_is_asked_for(stack: str) -> None:
    assert choose(stack, STACKS, None, None, nobody_looks) == (stack, "it was asked for")
    assert choose(stack, STACKS, stack, None, nobody_looks).runtime == stack


def test_flags_that_choose() -> None:
    assert choose(AUTO, STACKS, "openvino-genai", None, nobody_looks).runtime == "openvino-genai"
    assert choose(AUTO, STACKS, None, "cpu", nobody_looks) == ("pytorch", "the flags name the device cpu")
    assert chosen(machine(), device="xpu").runtime == "ipex"


def test_a_stack_that_contradicts_or_that_there_is_none_of() -> None:
    with pytest.raises(UserError, match="to be pytorch, and the flags choose ipex"):
        choose("pytorch", STACKS, "ipex", None, nobody_looks)
    with pytest.raises(UserError, match="did you mean ipex"):
        choose("ipx", STACKS, None, None, nobody_looks)


GUIDE = "--ipex --use-static-cache --token-latency"


@pytest.mark.parametrize(
    ("suite", "stack", "there", "not_there"),
    [
        ("benchmark", "ipex", GUIDE, "--runtime"),
        ("benchmark-ds", "ipex", GUIDE, "--runtime"),
        ("benchmark-woq", "ipex", f"--woq {GUIDE}", "--runtime"),
        ("accuracy", "ipex", "--ipex", "--use-static-cache"),
        ("accuracy-ds", "ipex", "--ipex", "--use-static-cache"),
        ("benchmark", "pytorch", "--token-latency", "--ipex"),
        ("benchmark-woq", "pytorch", "--woq", "--ipex"),
        ("benchmark-woq", "openvino", "--runtime openvino --weight-format int4", "--woq"),
        ("accuracy", "openvino", "--runtime openvino", "--ipex"),
        # A runtime without flags of its own takes the default's.
        ("benchmark-woq", "fake", "--woq", "--ipex"),
    ],
)
def test_the_flags_of_a_stack(suite: str, stack: str, there: str, not_there: str) -> None:
    (line, *_) = command_lines(read_suite(suite), ["m"], [], stack=stack)
    assert there in " ".join(line.flags)
    assert not_there not in line.flags


def test_the_command_says_which_and_why_first(xpubench: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text("{}")
    fake = f"--runtime fake --fake-script {tmp_path}/script.json"
    arguments = ("suite", "benchmark", "--dry-run", "--models", "facebook/opt-6.7b")
    done = xpubench(*arguments, "--stack", "auto", "--flags", f"--device cpu {fake}")
    assert done.code == 0, done.err
    first, second, *_ = done.out.splitlines()
    assert first.startswith("stack: fake, because the flags name it; stack=ipex or pytorch")
    assert second.startswith("--allow-pickle is not given, and the hub's files of facebook/opt-6.7b do not")
    allowed = xpubench(*arguments, "--flags", f"--device cpu --allow-pickle {fake}")
    assert "--allow-pickle" not in allowed.out
    done = xpubench(*arguments, "--stack", "pytorch", "--flags", f"--device cpu {fake}")
    assert (done.code, "the flags choose fake" in done.error_line) == (2, True)
    done = xpubench("suite", "benchmark-ds", "--stack", "openvino", "--dry-run")
    assert (done.code, "unknown stack of this suite 'openvino'" in done.error_line) == (2, True)
    done = xpubench("suite", "smoke", "--stack", "ipex", "--dry-run")
    assert (done.code, "no flags by stack" in done.error_line) == (2, True)


def test_the_catalog_marks_what_the_hub_wants(xpubench: CommandLine) -> None:
    rows = {row["id"]: row["needed_flags"] for row in json.loads(xpubench("models", "--json").out)}
    pickle, code = "--allow-pickle", "--trust-remote-code"
    assert rows["EleutherAI/gpt-j-6b"] == rows["facebook/opt-30b"] == [pickle]
    assert rows["THUDM/glm-4-9b"] == [code]
    assert rows["baichuan-inc/Baichuan2-13B-Chat"] == [pickle, code]
    assert rows["meta-llama/Llama-2-7b-hf"] == []
