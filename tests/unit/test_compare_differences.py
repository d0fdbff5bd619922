"""What a comparison names beside its verdict: other tokens, machines, checkpoints, recipes and warnings."""

import msgspec
import pytest

from tests import records
from tests.comparing import BASE, only_run, slowed
from tests.conftest import CommandLine
from xpubench.environment import Environment
from xpubench.record import Output, Record, WeightsFingerprint
from xpubench.spec import Quantization, RunSpec


def test_int4_beside_float16(compare: CommandLine) -> None:
    done = compare(BASE, slowed(0.5, quantization=Quantization()))
    assert "quantization: none and RTN int4_fullrange groups of 64" in done.out


def with_tokens(tokens: list[int]) -> Record:
    return msgspec.structs.replace(BASE, output=Output(first_token_ids=tokens))


def test_other_tokens_are_named(compare: CommandLine) -> None:
    done = compare(with_tokens([1, 2, 3, 4]), with_tokens([1, 2, 9, 4]))
    assert "other tokens for the same prompt, from token 3 of 4" in done.out
    assert "other tokens" not in compare(with_tokens([1, 2]), with_tokens([1, 2])).out


def test_a_prompt_of_text_is_the_same_with_another_seed(compare: CommandLine) -> None:
    def run(tokens: list[int], seed: int, prompt: str | None) -> Record:
        made = with_tokens(tokens)
        assert isinstance(made.spec, RunSpec)
        workload = made.spec.workload
        if prompt is not None:
            workload = msgspec.structs.replace(workload, prompt=prompt, input_tokens=None)
        protocol = msgspec.structs.replace(made.spec.protocol, seed=seed)
        spec = msgspec.structs.replace(made.spec, workload=workload, protocol=protocol)
        return msgspec.structs.replace(made, spec=spec)

    assert "other tokens" in compare(run([1, 2], 0, "text"), run([1, 3], 1, "text")).out
    assert "other tokens" not in compare(run([1, 2], 0, None), run([1, 3], 1, None)).out


def test_another_machine_and_warnings_are_named(compare: CommandLine) -> None:
    host = records.ENVIRONMENT.host
    assert host is not None
    environment = msgspec.structs.replace(
        records.ENVIRONMENT,
        host=msgspec.structs.replace(host, cpu="another CPU", load_average_1min=9.0),
        versions={"torch": "1.0"},
    )
    new = msgspec.structs.replace(BASE, environment=environment, warnings=["noise 80%"])
    done = compare(BASE, new)
    assert f"host.cpu {host.cpu} → another CPU" in done.out
    assert "versions.torch 2.13.0+xpu → 1.0" in done.out
    assert "warning, new: noise 80%" in done.out
    assert "load_average" not in done.out


def with_checkpoint(config: str | None, weights: str = "") -> Record:
    fingerprint = None if config is None else WeightsFingerprint(config=config * 64, weights=weights * 64)
    return msgspec.structs.replace(BASE, fingerprint=fingerprint)


def test_another_checkpoint_is_named_before_the_other_facts(compare: CommandLine) -> None:
    new = msgspec.structs.replace(with_checkpoint("a", "c"), environment=Environment(python="9"))
    done = compare(with_checkpoint("a", "b"), new)
    changed = f"other environment: weights of llama-2-7b-hf {12 * 'b'} → {12 * 'c'}; device."
    assert changed in done.out
    done = compare(with_checkpoint("a", "b"), with_checkpoint("d", "b"))
    assert f"other environment: config of llama-2-7b-hf {12 * 'a'} → {12 * 'd'}" in done.out
    assert "weights of" not in done.out


@pytest.mark.parametrize(("one", "other"), [("a", "a"), (None, "a"), ("a", None)])
def test_a_checkpoint_that_is_the_same_or_unknown_is_not_named(
    compare: CommandLine, one: str | None, other: str | None
) -> None:
    assert "other environment" not in compare(with_checkpoint(one), with_checkpoint(other)).out


def test_warnings_that_differ_in_numbers_alone_are_told_once(in_turns: CommandLine) -> None:
    source = iter(range(10, 90))
    noisy = {
        "changed": lambda one: msgspec.structs.replace(one, warnings=[f"noise {next(source)}%", "other"])
    }
    run = only_run(in_turns(1.0, "--json", **noisy))
    assert [one for one in run["warnings"] if one.startswith("new")] == [
        "new: noise 10% (and 2 like it)",
        "new: other (and 2 like it)",
    ]
