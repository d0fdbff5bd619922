"""The matrix by platforms: where a run counts, in which mode, and against which accuracy."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import CommandLine
from tests.records import accuracy_record, failed, latency_record, on_device, subject, write
from xpubench.catalog import model
from xpubench.environment import Environment
from xpubench.record import Record, WeightsFingerprint
from xpubench.runtimes.options import AppliedQuantization
from xpubench.spec import Quantization

LLAMA = "meta-llama/Llama-2-7b-hf"
STANDARD = "lambada_standard"
ADAPTER = "/adapters/chat"
RAN = latency_record(subject(LLAMA))


@pytest.fixture
def cells(xpubench: CommandLine, tmp_path: Path) -> Any:
    """`cells(*records)`: by platform and mode the entries of Llama's cells that have any, by runtime."""

    def run(*records: Record) -> dict[tuple[str, str], dict[str, tuple[str, str]]]:
        for number, record in enumerate(records):
            write(tmp_path / "results", record, str(number))
        done = xpubench("report", tmp_path / "results", "--format", "json")
        assert done.code == 0, done.err
        [line] = [row for row in json.loads(done.out)["matrix"]["rows"] if row["model"] == LLAMA]
        return {
            (cell["platform"], cell["mode"]): {
                one["runtime"]: (one["verdict"], one["reason"]) for one in cell["entries"]
            }
            for cell in line["cells"]
            if cell["entries"]
        }

    return run


@pytest.mark.parametrize(
    ("name", "kind", "driver", "platform"),
    [
        ("Intel(R) Data Center GPU Max 1100", "xpu", "1", "max"),
        ("Intel(R) Arc(TM) 140V GPU (16GB)", "xpu", "1", "core-ultra"),
        ("Intel(R) Arc(TM) Pro 140T GPU (16GB)", "xpu", "1", "core-ultra"),
        ("Intel(R) Arc(TM) Pro 140V", "xpu", "1", "core-ultra"),
        ("Intel(R) Arc(TM) Graphics", "xpu", "1", "core-ultra"),
        ("Intel(R) Graphics [0x64a0]", "xpu", "1", "core-ultra"),
        ("Intel(R) Arc(TM) B580 Graphics", "xpu", "1", "b580"),
        # A Pro card is another device, whose name begins alike.
        ("Intel(R) Arc(TM) Pro B50 Graphics", "xpu", "1", "Intel Arc Pro B50"),
        # The cores of a processor are no GPU, and an emulated GPU is none either.
        ("Intel(R) Core(TM) Ultra 7 258V", "cpu", None, "CPU"),
        ("Intel(R) Xeon(R) CPU Max 9480", "cpu", None, "CPU"),
        (
            "Intel(R) Data Center GPU Max 1550",
            "xpu",
            "0.0.0+emulated",
            "Intel(R) Data Center GPU Max 1550, emulated",
        ),
        ("Unheard-of GPU", "xpu", "1", "Unheard-of GPU"),
        ("NVIDIA H200", "cuda", "1", "NVIDIA H200"),
    ],
)
def test_a_run_counts_where_its_device_belongs(
    cells: Any, name: str, kind: str, driver: str | None, platform: str
) -> None:
    of = subject(LLAMA, device=kind)
    assert list(cells(on_device(latency_record(of), name, kind=kind, driver=driver))) == [(platform, "fp16")]


def test_runtimes_are_told_apart(cells: Any) -> None:
    found = cells(
        latency_record(subject(LLAMA)),
        accuracy_record(subject(LLAMA)),
        latency_record(subject(LLAMA, runtime="ipex")),
        failed(latency_record(subject(LLAMA, runtime="openvino")), "oom", "no"),
    )
    assert found == {
        ("max", "fp16"): {
            "ipex": ("partial", "no accuracy run"),
            "openvino": ("fail", "latency: oom"),
            "pytorch": ("pass", ""),
        }
    }


def loaded(record: Record, **told: Any) -> Record:
    """The record with these fields in the description of what was loaded."""
    assert record.runtime is not None
    return msgspec.structs.replace(record, runtime=msgspec.structs.replace(record.runtime, **told))


def openvino(**fields: Any) -> Record:
    return latency_record(subject(LLAMA, runtime="openvino", **fields))


def llama_cpp(weights: str, model: str = LLAMA, **fields: Any) -> Record:
    return latency_record(subject(model, runtime="llama-cpp", weights=weights, **fields))


RECIPE = {"recipe": {"model": LLAMA, "weight_format": "int4", "group_size": 128}}


@pytest.mark.parametrize(
    ("record", "mode"),
    [
        (openvino(), "fp16"),
        (openvino(weight_format="int4"), "int4"),
        (openvino(weight_format="int8"), "int8"),
        # A directory with an IR: the spec has no format, its recipe or its file has.
        (loaded(openvino(), ir=RECIPE), "int4"),
        (loaded(openvino(), stored="int8"), "int8"),
        (loaded(openvino(), stored="float16", applied={"INFERENCE_PRECISION_HINT": "bf16"}), "bf16"),
        (latency_record(subject(LLAMA, quantization=Quantization())), "int4"),
        (latency_record(subject(LLAMA, dtype="bfloat16")), "bf16"),
        (latency_record(subject(LLAMA, runtime="deepspeed", tp_size=2)), "distributed"),
        (
            loaded(latency_record(subject(LLAMA)), quantization=AppliedQuantization(weight_dtype="int4")),
            "int4",
        ),
        (loaded(latency_record(subject(LLAMA)), quantization=AppliedQuantization(weight_dtype="fp8")), None),
        (latency_record(subject(LLAMA, dtype="float32")), None),
        (llama_cpp("Q4_1"), "int4"),
        (llama_cpp("Q8_0"), "int8"),
        (llama_cpp("F16", dtype="bfloat16"), "fp16"),
        (failed(llama_cpp("F16", dtype="bfloat16"), "oom", "no"), "fp16"),
        (failed(llama_cpp("Q4_K"), "oom", "no"), "int4"),
        (llama_cpp("BF16"), "bf16"),
        (llama_cpp("F32"), None),
        *((llama_cpp(other), None) for other in ("Q6_K", "Q5_K", "Q3_K", "Q2_K", "IQ1_S")),
        (loaded(llama_cpp(""), weights="Q4_0"), "int4"),
        (latency_record(subject(LLAMA, runtime="deepspeed", tp_size=2, dtype="bfloat16")), None),
    ],
)
def test_the_precision_is_what_really_ran(cells: Any, record: Record, mode: str | None) -> None:
    assert list(cells(record)) == ([("max", mode)] if mode else [])


@pytest.mark.parametrize("lora", [{"lora": ADAPTER}, {"ir": {"recipe": {"model": LLAMA, "lora": ADAPTER}}}])
def test_a_model_with_an_adapter_is_another_model(cells: Any, lora: dict[str, Any]) -> None:
    """Its runs are in no cell of the model, whether the adapter is the run's or was merged before."""
    if "ir" in lora:
        assert cells(loaded(openvino(), **lora)) == {}
    else:
        assert cells(latency_record(subject(LLAMA, **lora)), accuracy_record(subject(LLAMA, **lora))) == {}


def test_an_ir_counts_for_the_model_that_it_was_made_of(cells: Any) -> None:
    record = latency_record(subject("/models/llama-int4-ir", runtime="openvino"))
    assert list(cells(loaded(record, ir=RECIPE))) == [("max", "int4")]


def test_a_gguf_counts_for_the_model_that_it_was_made_of(cells: Any) -> None:
    record = llama_cpp("Q4_K", "/m/Llama-2-7b-hf-Q4_K_M.gguf")
    assert list(cells(loaded(record, source=LLAMA))) == [("max", "int4")]


@pytest.mark.parametrize("faults", [[], [{"stage": "load", "failure": "oom", "message": "full"}]])
@pytest.mark.parametrize("place", ["models", "data/models"])
def test_a_relative_path_is_a_directory_and_no_name_of_the_hub(
    xpubench: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    faults: list[dict[str, Any]],
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = Path(place) / "Llama-2-7b-hf"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(model(LLAMA).config()))
    script = tmp_path / "script.json"
    max_1550 = {"name": "Intel(R) Data Center GPU Max 1550"}
    script.write_text(json.dumps({"device": max_1550, "faults": faults}))
    flags = ["--runtime", "fake", "--fake-script", script, "--device", "xpu", "--greedy", "--input-tokens", 8]
    few = ["--max-new-tokens", 4, "--num-iter", 2, "--num-warmup", 1]
    done = xpubench("generate", "-m", directory, *flags, *few)
    assert done.code == bool(faults), done.err
    found = json.loads(xpubench("report", "results", "--format", "json").out)
    [line] = [row for row in found["matrix"]["rows"] if row["model"] == LLAMA]
    assert [cell["mode"] for cell in line["cells"] if cell["entries"]] == ["fp16"]


def test_a_name_of_the_hub_is_no_path(cells: Any) -> None:
    """Another maker's model of that name is another model."""
    assert cells(latency_record(subject("NousResearch/Llama-2-7b-hf"))) == {}


def test_a_run_that_died_before_its_device_was_known_fails_where_the_others_ran(cells: Any) -> None:
    died = failed(latency_record(subject(LLAMA, runtime="ipex")), "crash", "SIGSEGV")
    died = msgspec.structs.replace(died, environment=Environment())
    found = cells(latency_record(subject(LLAMA)), died)
    assert found["max", "fp16"]["ipex"] == ("fail", "latency: crash")


def test_a_death_in_an_earlier_round_is_replaced_by_the_run_that_went_well(
    xpubench: CommandLine, tmp_path: Path
) -> None:
    died = failed(RAN, "crash", "SIGSEGV")
    died = msgspec.structs.replace(died, environment=Environment(), created="2020-01-01T00:00:00Z")
    for number, latency in enumerate((died, RAN), 1):
        write(tmp_path / f"round-{number}", latency)
        write(tmp_path / f"round-{number}", accuracy_record(subject(LLAMA)))
    found = json.loads(xpubench("report", tmp_path, "--format", "json").out)
    [line] = [row for row in found["matrix"]["rows"] if row["model"] == LLAMA]
    entries = {cell["platform"]: cell["entries"] for cell in line["cells"] if cell["entries"]}
    assert {name: [one["verdict"] for one in there] for name, there in entries.items()} == {"max": ["pass"]}
    assert found["failed"] == []


def accuracy(acc: float, *, weights: str | None = None, **fields: Any) -> Record:
    """An accuracy on LAMBADA's standard passages, of which nothing is published."""
    fingerprint = None if weights is None else WeightsFingerprint(config="c" * 64, weights=weights * 64)
    of = subject(LLAMA, **fields)
    return accuracy_record(of, acc=acc, reference=None, items=1000, task=STANDARD, fingerprint=fingerprint)


@pytest.mark.parametrize(
    ("records", "verdict", "reason"),
    [
        ([accuracy(0.02)], "partial", "no reference for the accuracy"),
        ([accuracy(0.02), accuracy(0.66, dtype="float32")], "fail", "accuracy below the float32 run, 66.0 %"),
        ([accuracy(0.62), accuracy(0.66, dtype="float32")], "fail", "accuracy below the float32 run, 66.0 %"),
        ([accuracy(0.64), accuracy(0.66, dtype="float32")], "pass", ""),
        # A float32 run that collapsed too, of other weights, of another task, of another stack, or
        # with an adapter.
        ([accuracy(0.02), accuracy(0.02, dtype="float32")], "partial", "no reference for the accuracy"),
        (
            [accuracy(0.64, weights="a"), accuracy(0.64, weights="b", dtype="float32")],
            "partial",
            "no reference for the accuracy",
        ),
        ([accuracy(0.64, weights="a"), accuracy(0.64, weights="a", dtype="float32")], "pass", ""),
        (
            [accuracy(0.64), accuracy(0.64, dtype="float32", runtime="ipex")],
            "partial",
            "no reference for the accuracy",
        ),
        (
            [accuracy(0.64), accuracy(0.64, dtype="float32", lora=ADAPTER)],
            "partial",
            "no reference for the accuracy",
        ),
        (
            [accuracy(0.64), accuracy_record(subject(LLAMA, dtype="float32"), reference=None)],
            "partial",
            "no reference for the accuracy",
        ),
    ],
)
def test_a_collapsed_model_does_not_pass(
    cells: Any, records: list[Record], verdict: str, reason: str
) -> None:
    assert cells(RAN, *records)["max", "fp16"] == {"pytorch": (verdict, reason)}


def test_the_summary_counts_what_was_measured(xpubench: CommandLine, tmp_path: Path) -> None:
    write(tmp_path, RAN)
    write(tmp_path, on_device(latency_record(subject("smollm2-135m", device="cpu")), "Some CPU", kind="cpu"))
    done = xpubench("report", tmp_path, "--format", "md")
    assert (
        "- Data Center GPU Max, FP16, pytorch: 0 models pass, 0 fail, 1 partial; the guide validated 24"
        in done.out
    )
    assert "- CPU, FP16, pytorch: 0 models pass, 0 fail, 1 partial; the guide validated 0" in done.out


def of(groups: int = 128, **recipe: Any) -> dict[str, Any]:
    return {"quantization": Quantization(group_size=groups, **recipe)}


IPEX = {"runtime": "ipex"}
OPENVINO = {"runtime": "openvino"}
OTHER_RECIPE = "accuracy of another recipe: "


@pytest.mark.parametrize(
    ("latency", "accuracies", "mode", "reason"),
    [
        (of(), [of()], "int4", ""),
        (of(checkpoint="/quantized"), [of()], "int4", ""),
        (
            of(),
            [of(32)],
            "int4",
            f"{OTHER_RECIPE}RTN int4_fullrange groups of 32 instead of RTN int4_fullrange groups of 128",
        ),
        (of(), [of(32), of()], "int4", ""),
        (
            of(),
            [of(compute_dtype="int8")],
            "int4",
            f"{OTHER_RECIPE}compute_dtype int8 instead of the default",
        ),
        (
            of(),
            [of() | {"dtype": "float32"}],
            "int4",
            f"{OTHER_RECIPE}int4 float32 instead of int4 float16",
        ),
        (
            IPEX,
            [IPEX | {"ipex_optimize": False}],
            "fp16",
            f"{OTHER_RECIPE}ipex_optimize False instead of the default",
        ),
        (
            IPEX | {"allow_unoptimized": True},
            [IPEX],
            "fp16",
            f"{OTHER_RECIPE}the default instead of allow_unoptimized True",
        ),
        (IPEX | {"allow_unoptimized": True}, [IPEX | {"allow_unoptimized": True}], "fp16", ""),
        (
            OPENVINO | {"config": {"KV_CACHE_PRECISION": "u8"}},
            [OPENVINO],
            "fp16",
            f"{OTHER_RECIPE}the default instead of config {{'KV_CACHE_PRECISION': 'u8'}}",
        ),
    ],
)
def test_an_accuracy_counts_for_latencies_of_its_recipe(
    cells: Any, latency: dict[str, Any], accuracies: list[dict[str, Any]], mode: str, reason: str
) -> None:
    found = cells(
        latency_record(subject(LLAMA, **latency)),
        *(accuracy_record(subject(LLAMA, **one)) for one in accuracies),
    )
    [(verdict, told)] = found["max", mode].values()
    assert (verdict, told) == ("partial" if reason else "pass", reason)


def test_each_recipe_with_a_latency_needs_an_accuracy_of_its_own(cells: Any) -> None:
    both = [latency_record(subject(LLAMA, **of(groups))) for groups in (32, 128)]
    found = cells(*both, accuracy_record(subject(LLAMA, **of(32))))
    verdict, reason = found["max", "int4"]["pytorch"]
    assert verdict == "partial"
    assert reason.endswith("groups of 32 instead of RTN int4_fullrange groups of 128")


def test_an_ir_has_the_recipe_of_the_export_that_made_it(cells: Any) -> None:
    """The one that was exported before, and the one that a run exports from the checkpoint."""
    exported = loaded(latency_record(subject("/models/ir", **OPENVINO)), ir=RECIPE)
    scored = accuracy_record(subject(LLAMA, weight_format="int4", **OPENVINO), runtime=exported.runtime)
    assert cells(exported, scored)["max", "int4"] == {"openvino": ("pass", "")}


def test_a_latency_of_random_weights_needs_no_accuracy_of_its_recipe(cells: Any) -> None:
    dummy = latency_record(subject(LLAMA, weights="dummy", **of(32)))
    trained = latency_record(subject(LLAMA, **of()))
    found = cells(dummy, trained, accuracy_record(subject(LLAMA, **of())))
    assert found["max", "int4"] == {"pytorch": ("pass", "")}


def test_a_cell_shows_a_latency_and_an_accuracy_of_one_recipe(xpubench: CommandLine, tmp_path: Path) -> None:
    newer = {"created": "2026-12-01T00:00:00Z"}
    write(tmp_path, latency_record(subject(LLAMA, **of()), **newer))
    write(tmp_path, latency_record(subject(LLAMA, **of(32))))
    write(tmp_path, accuracy_record(subject(LLAMA, **of())))
    write(tmp_path, accuracy_record(subject(LLAMA, **of(32)), **newer))
    found = json.loads(xpubench("report", tmp_path, "--format", "json").out)
    [line] = [row for row in found["matrix"]["rows"] if row["model"] == LLAMA]
    [entry] = [one for cell in line["cells"] for one in cell["entries"]]
    assert entry["verdict"] == "pass"
    assert "RTN int4_fullrange groups of 128" in entry["latency"]["recipe"]
    assert entry["latency"]["recipe"] == entry["accuracy"]["recipe"]
