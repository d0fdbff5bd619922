"""Two directories side by side."""

import csv
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import CommandLine
from tests.records import ENVIRONMENT, accuracy_record, failed, latency_record, round_of, subject, write
from xpubench.record import Output, Record, WeightsFingerprint
from xpubench.runtimes.ipex.options import IpexDescription
from xpubench.runtimes.options import AppliedQuantization
from xpubench.spec import Quantization, RunSpec, Subject

LLAMA = "meta-llama/Llama-2-7b-hf"


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """The paths of two directories."""
    return tmp_path / "a", tmp_path / "b"


def diff(xpubench: CommandLine, sides: tuple[Path, Path]) -> dict[str, Any]:
    """The comparison as JSON."""
    done = xpubench("report", "--diff", *sides, "--format", "json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


@pytest.mark.parametrize(("factor", "verdict"), [(1.1, "slower"), (0.9, "faster"), (1.0, "same")])
def test_the_ratio_of_one_work_on_two_stacks(
    xpubench: CommandLine, sides: tuple[Path, Path], factor: float, verdict: str
) -> None:
    for number in (1, 2, 3):
        round_of(sides[0], number, of=subject(LLAMA, runtime="ipex"))
        round_of(sides[1], number, of=subject(LLAMA, device="cuda"), slow=factor, second=True)
    [pair] = diff(xpubench, sides)["pairs"]
    figures = pair["comparison"]["figures"]
    assert figures["next_token"]["change"] == pytest.approx(factor, rel=0.01)
    assert figures["next_token"]["low"] < factor < figures["next_token"]["high"]
    assert figures["peak_device"]["change"] == 1
    [row] = csv.DictReader(io.StringIO(xpubench("report", "--diff", *sides, "--format", "csv").out))
    assert row["verdict"] == verdict


def test_other_work_is_not_held_together(xpubench: CommandLine, sides: tuple[Path, Path]) -> None:
    a, b = sides
    write(a, latency_record(subject(LLAMA)))
    for other in (
        latency_record(subject(LLAMA), batch_size=2),
        latency_record(subject(LLAMA, dtype="bfloat16")),
        latency_record(subject(LLAMA, weights="dummy")),
        latency_record(subject("other")),
        accuracy_record(subject(LLAMA)),
    ):
        write(b, other)
    found = diff(xpubench, sides)
    assert (found["pairs"], len(found["only_a"]), len(found["only_b"])) == ([], 1, 5)


def test_a_stack_on_both_sides_is_held_against_itself(
    xpubench: CommandLine, sides: tuple[Path, Path]
) -> None:
    for side in sides:
        for runtime in ("ipex", "pytorch"):
            write(side, latency_record(subject(LLAMA, runtime=runtime)))
    pairs = diff(xpubench, sides)["pairs"]
    assert sorted((pair["a"]["runtime"], pair["b"]["runtime"]) for pair in pairs) == [
        ("ipex", "ipex"),
        ("pytorch", "pytorch"),
    ]


def test_accuracies_item_by_item(xpubench: CommandLine, sides: tuple[Path, Path]) -> None:
    a, b = sides
    write(a, accuracy_record(subject(LLAMA), acc=0.74, items=200))
    write(b, accuracy_record(subject(LLAMA, runtime="ipex"), acc=0.70, items=200))
    [pair] = diff(xpubench, sides)["pairs"]
    assert pair["comparison"]["verdict"] == "worse"
    judged = pair["comparison"]["accuracy"]["accuracy"]
    assert judged["change"] == pytest.approx(-4)
    assert judged["p_value"] == pytest.approx(2 * 0.5**8)


def test_quantized_weights_are_the_same_work_wherever_they_lie(
    xpubench: CommandLine, sides: tuple[Path, Path]
) -> None:
    for side, checkpoint in zip(sides, (None, "/models/int4"), strict=True):
        write(side, latency_record(subject(LLAMA, quantization=Quantization(checkpoint=checkpoint))))
    write(sides[1], latency_record(subject(LLAMA, quantization=Quantization(group_size=128))))
    found = diff(xpubench, sides)
    assert (len(found["pairs"]), len(found["only_b"])) == (1, 1)


def test_a_failed_run_has_no_ratio(xpubench: CommandLine, sides: tuple[Path, Path]) -> None:
    a, b = sides
    write(a, latency_record(subject(LLAMA)))
    write(b, failed(latency_record(subject(LLAMA)), "oom", "no"))
    [pair] = diff(xpubench, sides)["pairs"]
    assert (pair["comparison"]["verdict"], pair["comparison"]["figures"]) == ("newly failing", {})
    assert pair["b"]["status"] == "oom"


def test_the_figures_are_those_of_the_rounds_that_count(
    xpubench: CommandLine, sides: tuple[Path, Path]
) -> None:
    """A round of the base that was interrupted is left out where others went well, in both places."""
    for number in (1, 2, 3):
        round_of(sides[0], number, of=subject(LLAMA, runtime="ipex"))
        round_of(sides[1], number, of=subject(LLAMA, device="cuda"), second=True)
    stopped = partial(failed, failure_class="interrupted", message="by the user")
    round_of(sides[0], 4, of=subject(LLAMA, runtime="ipex"), changed=stopped)
    [pair] = diff(xpubench, sides)["pairs"]
    assert pair["comparison"]["figures"]["next_token"]["change"] == pytest.approx(1, rel=0.05)
    assert (pair["a"]["status"], pair["a"]["next_token_ms"]) == ("ok", pytest.approx(20, rel=0.05))


def test_a_copy_is_no_round(xpubench: CommandLine, sides: tuple[Path, Path]) -> None:
    for side, slow in zip(sides, (20.0, 21.6), strict=True):
        for name in ("round-1", "round-2", "copy"):
            write(side / name, latency_record(subject(LLAMA), next_ms=slow))
    found = diff(xpubench, sides)
    [pair] = found["pairs"]
    assert (pair["comparison"]["verdict"], len(found["left_out"])) == ("inconclusive", 4)


def test_what_differs_in_the_environments(xpubench: CommandLine, sides: tuple[Path, Path]) -> None:
    a, b = sides
    record = latency_record(subject(LLAMA))
    write(a, record)
    assert ENVIRONMENT.device is not None
    device = msgspec.structs.replace(ENVIRONMENT.device, driver="2.0", free_memory_bytes=1)
    environment = msgspec.structs.replace(ENVIRONMENT, device=device)
    write(b, msgspec.structs.replace(record, environment=environment))
    assert diff(xpubench, sides)["environment"] == [
        {"name": "device.driver", "a": ENVIRONMENT.device.driver, "b": "2.0"}
    ]


def test_another_checkpoint_of_a_model_is_named(xpubench: CommandLine, sides: tuple[Path, Path]) -> None:
    """Models that one side alone has are no difference of checkpoints."""
    for directory, digest in zip(sides, ("a", "b"), strict=True):
        known = WeightsFingerprint(config="c" * 64, weights=digest * 64)
        write(directory, latency_record(subject(), fingerprint=known))
    write(sides[1], latency_record(subject("another/model"), fingerprint=known))
    assert diff(xpubench, sides)["environment"] == [
        {"name": "weights of llama-2-7b-hf", "a": 12 * "a", "b": 12 * "b"}
    ]


def test_compare_and_diff_say_the_same_of_the_same_records(
    xpubench: CommandLine, sides: tuple[Path, Path]
) -> None:
    """A ratio whose interval is inside the limit is the same for both."""
    for number in (1, 2, 3):
        round_of(sides[0], number)
        round_of(sides[1], number, slow=1.03, second=True)
    [pair] = diff(xpubench, sides)["pairs"]
    [run] = json.loads(xpubench("compare", *sides, "--json").out)["runs"]
    assert pair["comparison"] == run
    assert run["verdict"] == "same"


def rounds(directory: Path, of: Subject, slow: float = 1.0, **fields: Any) -> None:
    """Three rounds of a run, a second run of the round."""
    for number in (1, 2, 3):
        round_of(directory, number, of=of, slow=slow, second=True, **fields)


IR = {"recipe": {"model": LLAMA, "weight_format": "int4", "group_size": 128, "ratio": 1.0}}


def of_ir(record: Record) -> Record:
    """The record of an INT4 IR in a directory."""
    assert record.runtime is not None
    return msgspec.structs.replace(record, runtime=msgspec.structs.replace(record.runtime, ir=IR))


def test_int4_of_two_stacks_is_one_work_and_the_recipes_are_told(
    xpubench: CommandLine, sides: tuple[Path, Path]
) -> None:
    for number in (1, 2, 3):
        round_of(sides[0], number, of=subject(LLAMA, runtime="ipex", quantization=Quantization(head="high")))
        made = subject("/ir/llama", runtime="openvino", dtype="bfloat16")
        round_of(sides[1], number, of=made, slow=0.8, second=True, changed=of_ir)
        round_of(sides[1], number, of=subject(LLAMA, runtime="openvino"), second=True)
    found = diff(xpubench, sides)
    [pair] = found["pairs"]
    assert (pair["model"], pair["comparison"]["verdict"]) == (LLAMA, "faster")
    assert pair["recipes"] == [
        "RTN int4_fullrange groups of 64, float16 scales, head not quantized",
        "NNCF, weight_format int4, group_size 128, ratio 1.0",
    ]
    assert len(found["only_b"]) == 1
    [move] = found["moves"]
    assert (move["a"], move["b"], move["precision"]) == ("ipex on xpu", "openvino on xpu", "int4")


def test_a_recipe_is_told_in_words_with_the_type_that_really_ran(
    xpubench: CommandLine, sides: tuple[Path, Path]
) -> None:
    """IPEX records what neural-compressor says of itself, which nobody reads in a table."""
    told = AppliedQuantization(weight_dtype="int4_clip", library={"bits": 4, "model_path": ""})
    of = subject(LLAMA, runtime="ipex", quantization=Quantization(weight_dtype="int4_fullrange"))
    loaded = msgspec.structs.replace(IpexDescription(), quantization=told)
    write(sides[0], msgspec.structs.replace(latency_record(of), runtime=loaded))
    write(sides[1], latency_record(subject(LLAMA, quantization=Quantization())))
    [pair] = diff(xpubench, sides)["pairs"]
    assert pair["recipes"][0].startswith("RTN int4_clip groups of ")
    assert "model_path" not in pair["recipes"][0]


def gguf(weights: str, model: str = LLAMA, dtype: str = "float32") -> Subject:
    return subject(model, runtime="llama-cpp", weights=weights, dtype=dtype)


def of_gguf(record: Record) -> Record:
    """The record of a GGUF with most bytes in Q4_1, which knows what it was converted from."""
    assert record.runtime is not None
    told = {"weights": "Q4_1", "tensor_bytes": {"Q4_1": 66, "Q8_0": 34}, "source": LLAMA}
    return msgspec.structs.replace(record, runtime=msgspec.structs.replace(record.runtime, **told))


@pytest.mark.parametrize("model", [LLAMA, "/m/Llama-2-7b-hf-Q4_1.gguf"])
def test_a_gguf_of_4_bits_pairs_with_int4(
    xpubench: CommandLine, sides: tuple[Path, Path], model: str
) -> None:
    a, b = sides
    rounds(a, subject(LLAMA, quantization=Quantization()))
    rounds(b, gguf("Q4_1", model), 0.8, changed=of_gguf)
    for other in ("Q8_0", "Q5_K", "Q3_K", "F16"):
        rounds(b, gguf(other))
    found = diff(xpubench, sides)
    [pair] = found["pairs"]
    assert pair["comparison"]["verdict"] == "faster"
    assert pair["recipes"][1] == "GGUF Q4_1 66%, Q8_0 34% of the bytes"
    assert len(found["only_b"]) == 4
    [move] = found["moves"]
    assert (move["a"], move["b"], move["precision"]) == ("pytorch on xpu", "llama-cpp on xpu", "int4")


def test_a_gguf_of_16_bits_pairs_with_the_dtype_of_its_weights(
    xpubench: CommandLine, sides: tuple[Path, Path]
) -> None:
    write(sides[0], latency_record(subject(LLAMA)))
    for weights in ("F16", "BF16", "F32"):
        write(sides[1], latency_record(gguf(weights, dtype="bfloat16")))
    found = diff(xpubench, sides)
    assert [pair["precision"] for pair in found["moves"]] == ["float16"]
    assert (len(found["pairs"]), len(found["only_b"])) == (1, 2)


def test_another_cache_is_the_same_work(xpubench: CommandLine, sides: tuple[Path, Path]) -> None:
    for side, runtime, cache in zip(sides, ("ipex", "pytorch"), ("static", "dynamic"), strict=True):
        record = latency_record(subject(LLAMA, runtime=runtime))
        assert isinstance(record.spec, RunSpec)
        workload = msgspec.structs.replace(record.spec.workload, cache=cache)
        write(
            side,
            msgspec.structs.replace(record, spec=msgspec.structs.replace(record.spec, workload=workload)),
        )
    [pair] = diff(xpubench, sides)["pairs"]
    assert "cache: static and dynamic" in pair["comparison"]["differs"]


@pytest.mark.parametrize(
    ("model", "digest", "pairs"),
    [
        ("/models/Llama-2-7b-hf", "a", 1),  # a copy of the hub's
        ("/models/tuned", "a", 1),  # under another name
        ("/models/Llama-2-7b-hf", "b", 0),  # another model in a directory of that name
        ("/models/Llama-2-7b-hf", None, 1),  # nobody knows, as of an earlier version's record
        ("/models/tuned", None, 0),
        (LLAMA, "b", 1),  # the name on the hub decides, and the weights are named as a difference
        ("NousResearch/Llama-2-7b-hf", "a", 1),
        ("NousResearch/Llama-2-7b-hf", None, 0),  # of another maker, who may have tuned it
    ],
)
def test_a_model_is_known_by_its_weights_or_its_name(
    xpubench: CommandLine, sides: tuple[Path, Path], model: str, digest: str | None, pairs: int
) -> None:
    def known(digest: str | None) -> WeightsFingerprint | None:
        return None if digest is None else WeightsFingerprint(config="c" * 64, weights=digest * 64)

    write(sides[0], latency_record(subject(LLAMA, runtime="ipex"), fingerprint=known("a")))
    write(sides[1], latency_record(subject(model), fingerprint=known(digest)))
    found = diff(xpubench, sides)
    assert len(found["pairs"]) == pairs
    done = xpubench("compare", *sides, "--json")
    verdicts = {run["verdict"] for run in json.loads(done.out)["runs"]}
    assert verdicts == ({"inconclusive"} if pairs else {"missing"})


def test_the_summary_counts_each_model_by_its_worst_verdict(
    xpubench: CommandLine, sides: tuple[Path, Path]
) -> None:
    """Inconclusive is never the same; a model that only one workload slows down is slower."""
    a, b = sides
    for name, slow in (("one", 1.0), ("two", 0.8), ("three", 1.21), ("four", 1.0)):
        for number in (1, 2, 3):
            round_of(a, number, of=subject(name, runtime="ipex"))
            round_of(b, number, of=subject(name), slow=slow, second=True)
    for number in (1, 2, 3):
        round_of(a, number, of=subject("four", runtime="ipex"), batch_size=2)
        round_of(b, number, of=subject("four"), slow=1.1, second=True, batch_size=2)
    write(a, latency_record(subject("single", runtime="ipex")))
    write(b, latency_record(subject("single")))
    write(a, latency_record(subject("broken", runtime="ipex")))
    write(b, failed(latency_record(subject("broken")), "oom", "no"))
    write(a, latency_record(subject("left behind", runtime="ipex")))
    for name, acc in (("one", 0.74), ("three", 0.60)):
        write(a, accuracy_record(subject(name, runtime="ipex"), acc=0.74, items=1000))
        write(b, accuracy_record(subject(name), acc=acc, items=1000))
    done = xpubench("report", "--diff", *sides, "--format", "md")
    assert (
        "- moving from ipex on xpu to pytorch on xpu, float16: 2 of 6 models same or faster, 2 slower "
        "(worst 1.21), 1 inconclusive, 1 failing now, 1 of 2 less accurate, 1 more not run on the latter"
    ) in done.out


def test_a_model_that_is_slower_to_the_first_token_alone_is_told(
    xpubench: CommandLine, sides: tuple[Path, Path]
) -> None:
    for number in (1, 2, 3):
        round_of(sides[0], number, of=subject(LLAMA, runtime="ipex"))
        record = latency_record(
            subject(LLAMA), first_ms=400, created=f"2026-11-20T10:{number}5:00Z", seed=2 * number + 1
        )
        write(sides[1] / f"round-{number}", record)
    [move] = diff(xpubench, sides)["moves"]
    assert (move["latency"]["well"], move["slower_to_first"]) == (1, 1)


def test_the_stacks_of_one_directory(xpubench: CommandLine, tmp_path: Path) -> None:
    """The guide's stack is the one that is moved from."""
    for number in (1, 2, 3):
        for runtime in ("pytorch", "openvino", "ipex"):
            round_of(tmp_path, number, of=subject(LLAMA, runtime=runtime), second=runtime != "ipex")
    done = xpubench("report", "--diff", tmp_path, "--format", "json")
    assert [(move["a"], move["b"]) for move in json.loads(done.out)["moves"]] == [
        ("ipex on xpu", "openvino on xpu"),
        ("ipex on xpu", "pytorch on xpu"),
    ]


def test_tokens_stand_beside_the_figures(xpubench: CommandLine, sides: tuple[Path, Path]) -> None:
    for side, runtime, tokens in zip(sides, ("ipex", "pytorch"), ([1, 2, 3], [1, 2, 4]), strict=True):
        write(side, latency_record(subject(LLAMA, runtime=runtime), output=Output(first_token_ids=tokens)))
    [row] = csv.DictReader(io.StringIO(xpubench("report", "--diff", *sides, "--format", "csv").out))
    assert row["tokens"] == "other from 3"


def test_compare_pairs_by_work_only_where_the_sides_share_no_stack(
    xpubench: CommandLine, sides: tuple[Path, Path]
) -> None:
    a, b = sides
    rounds(a, subject(LLAMA, runtime="ipex"))
    for number in (1, 2, 3):
        round_of(b, number, of=subject(LLAMA), slow=1.3)
    done = xpubench("compare", *sides, "--json")
    [run] = json.loads(done.out)["runs"]
    assert (done.code, run["verdict"]) == (1, "slower")
    assert "runtime: ipex and pytorch" in run["differs"]
    # A run of the other stack in the base is a gate of its own again.
    write(a, latency_record(subject("other")))
    verdicts = {run["verdict"] for run in json.loads(xpubench("compare", *sides, "--json").out)["runs"]}
    assert verdicts == {"missing"}
