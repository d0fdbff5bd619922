"""The flags of the guide's own scripts parse, and mean what they mean there."""

import argparse

import pytest

from xpubench.cli import generation, tensor_parallel
from xpubench.cli.main import Parser
from xpubench.cli.options import accuracy_specs_from, specs_from
from xpubench.errors import UserError


def parsed(*flags: str, ranks: bool = False) -> argparse.Namespace:
    parser = Parser(prog="script")
    (tensor_parallel if ranks else generation).add_flags(parser)
    return parser.parse_args(["-m", "meta-llama/Llama-2-7b-hf", *flags])


def test_minus_one_item_is_all_of_them() -> None:
    (spec,) = accuracy_specs_from(parsed("--accuracy-only", "--acc-iter", "-1"), "cpu")
    assert spec.task.limit is None
    (spec,) = accuracy_specs_from(parsed("--accuracy-only", "--acc-iter", "5"), "cpu")
    assert spec.task.limit == 5
    with pytest.raises(UserError, match="at least 1, not -2"):
        accuracy_specs_from(parsed("--accuracy-only", "--acc-iter", "-2"), "cpu")
    # It is the guide's default, which a latency run may name.
    assert specs_from(parsed("--acc-iter", "-1"), "cpu") == specs_from(parsed(), "cpu")


def test_spellings_with_underscores() -> None:
    (spec,) = specs_from(parsed("--batch_size", "3", "--use_hf_code"), "cpu")
    assert spec.workload.batch_size == 3
    assert not spec.subject.trust_remote_code


def test_transformers_own_code_excludes_the_models() -> None:
    with pytest.raises(UserError, match="leave one out"):
        specs_from(parsed("--use-hf-code", "--trust-remote-code"), "cpu")
    (spec,) = specs_from(parsed("--use-hf-code", "False", "--trust-remote-code"), "cpu")
    assert spec.subject.trust_remote_code


def test_injected_kernels_are_refused() -> None:
    args = parsed("--ki", ranks=True)
    args.tp_size = 2
    with pytest.raises(UserError, match="--ki puts DeepSpeed's own kernels"):
        tensor_parallel.order_over_ranks(args, "cpu")


def test_a_model_is_named() -> None:
    parser = Parser(prog="script")
    generation.add_flags(parser)
    with pytest.raises(UserError, match="required: -m"):
        parser.parse_args(["--benchmark"])
