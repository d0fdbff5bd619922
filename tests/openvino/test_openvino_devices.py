"""OpenVINO's devices by their names. There is no GPU and no NPU here: the CPU's plugin computes under another
name, beside properties by the names that the plugins of GPUs and NPUs have."""

import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

openvino = pytest.importorskip("openvino")

from tests.conftest import CommandLine  # noqa: E402  # after the check that there is something to test
from xpubench.runtimes.openvino import device  # noqa: E402
from xpubench.runtimes.openvino.options import shares  # noqa: E402

GIB = 2**30
PROPERTIES = {
    "GPU.1": {
        "FULL_DEVICE_NAME": "Intel(R) Arc(TM) B580 Graphics (dGPU)",
        "DEVICE_TYPE": openvino.properties.device.Type.DISCRETE,
        "GPU_DRIVER_VERSION": "25.40.1",
        "DEVICE_UUID": "8680be20000000000300000000000000",
        "GPU_DEVICE_TOTAL_MEM_SIZE": 12 * GIB,
        "GPU_MEMORY_STATISTICS": {"usm_device": 700, "usm_host": 30},
    },
    "NPU": {
        "FULL_DEVICE_NAME": "Intel(R) AI Boost",
        "NPU_DRIVER_VERSION": 17,
        "NPU_DEVICE_TOTAL_MEM_SIZE": 16 * GIB,
        "NPU_DEVICE_ALLOC_MEM_SIZE": 4 * GIB,
    },
}
OWN = {name for properties in PROPERTIES.values() for name in properties}


class Compiled:
    """A compiled model that says that it runs on these devices."""

    def __init__(self, model: Any, devices: list[str]) -> None:
        self._model, self._devices = model, devices

    def get_property(self, name: str) -> Any:
        return self._devices if name == "EXECUTION_DEVICES" else self._model.get_property(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class RenamedCore(openvino.Core):  # type: ignore[misc, name-defined]  # OpenVINO is not installed everywhere
    """A core with a second GPU and an NPU, which are the CPU under their names. What distributes work to them
    computes on the CPU too, and says that it runs on `ran_on`, where that is not empty."""

    ran_on: ClassVar[list[str]] = []

    @property
    def available_devices(self) -> list[str]:
        return ["CPU", "GPU.0", *PROPERTIES]

    def get_property(self, name: str, key: str) -> Any:
        if name in PROPERTIES and key in OWN:
            if key not in PROPERTIES[name]:
                raise RuntimeError(f"no property {key}")
            return PROPERTIES[name][key]
        return super().get_property("CPU" if name in PROPERTIES else name, key)

    def set_property(self, name: str, properties: dict[str, Any]) -> None:
        super().set_property("CPU" if name in PROPERTIES else name, properties)

    def compile_model(self, model: Any, name: str, config: dict[str, Any]) -> Any:
        share = shares(name)
        compiled = super().compile_model(model, f"{share}:CPU" if share else "CPU", config)
        return Compiled(compiled, self.ran_on) if share and self.ran_on else compiled


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "Core", RenamedCore)
    monkeypatch.setattr(device, "BUFFER_BYTES", 2**26)
    monkeypatch.setattr(device, "PEAK_SIZE", 256)


def run(xpubench: CommandLine, ir: Path, tmp_path: Path, *flags: str) -> Any:
    shape = ["--greedy", "--input-tokens", "8", "--max-new-tokens", "4", "--num-iter", "2"]
    return xpubench("generate", "-m", ir, "--json", *shape, "--results-dir", tmp_path / "results", *flags)


@pytest.mark.usefixtures("renamed")
def test_a_run_is_told_and_measured_by_the_device_that_it_is_on(
    xpubench: CommandLine, llama_ir: Path, tmp_path: Path
) -> None:
    done = run(xpubench, llama_ir, tmp_path, "--runtime", "openvino-base", "--ov-device", "GPU.1")
    assert done.code == 0, done.err
    (record,) = done.records
    subject, found = record["spec"]["subject"], record["environment"]["device"]
    assert (subject["device"], subject["dtype"], subject["options"]["device"]) == ("xpu", "float16", "GPU.1")
    assert found == {
        "kind": "xpu",
        "name": "Intel(R) Arc(TM) B580 Graphics (dGPU)",
        "driver": "25.40.1",
        "uuid": "8680be20000000000300000000000000",
        "total_memory_bytes": 12 * GIB,
        "free_memory_bytes": None,
    }
    assert record["runtime"]["asked"]["INFERENCE_PRECISION_HINT"] == "f16"
    assert record["summary"]["peak_device_bytes"] == 730
    assert record["summary"]["bandwidth_datasheet_gb_per_s"] == 456
    bandwidth = record["bandwidth"]
    assert (bandwidth["copy_gb_per_s"], bandwidth["copy_ns"]) == (None, [])
    assert bandwidth["ceiling_gb_per_s"] == 2**26 / min(bandwidth["matvec_ns"])
    assert bandwidth["after_ceiling_gb_per_s"] == 2**26 / min(bandwidth["after_matvec_ns"])


@pytest.mark.usefixtures("renamed")
def test_xpu_is_a_gpu_of_openvino_without_torch(
    xpubench: CommandLine, llama_ir: Path, tmp_path: Path
) -> None:
    done = run(xpubench, llama_ir, tmp_path, "--runtime", "openvino-base", "--device", "xpu")
    (record,) = done.records
    assert record["spec"]["subject"]["options"]["device"] == "GPU"
    assert record["environment"]["device"]["kind"] == "xpu"


@pytest.mark.usefixtures("renamed")
@pytest.mark.parametrize(
    ("name", "kind", "measured"),
    [
        # AUTO prefers a discrete GPU, then an integrated one, and leaves out the NPU.
        ("AUTO", "xpu", "GPU.1"),
        ("AUTO", "cpu", "CPU"),
        ("AUTO:-CPU", "xpu", "GPU.1"),
        ("MULTI:-CPU", "xpu", "GPU.1"),
        ("AUTO:-GPU.1", "xpu", "GPU.0"),
        ("AUTO:-GPU", "cpu", "CPU"),
        ("HETERO:CPU,GPU.1", "cpu", "CPU"),
        ("MULTI:NPU,GPU.1", "npu", "NPU"),
    ],
)
def test_which_device_is_measured_where_several_may_run(name: str, kind: str, measured: str) -> None:
    assert device.measured_device(name, kind) == measured
    if "-" not in name and name != "AUTO":
        assert device.candidates(name)[0] == measured


@pytest.mark.usefixtures("renamed")
@pytest.mark.parametrize(
    ("name", "kind", "told", "where"),
    [
        ("AUTO", "xpu", ["GPU.1"], None),
        ("AUTO:GPU,CPU", "xpu", ["GPU.0"], None),
        ("AUTO:GPU.1,CPU", "xpu", ["GPU.0"], "GPU.0"),
        ("AUTO:CPU,GPU.1", "cpu", ["GPU.1"], "GPU.1"),
        ("MULTI:GPU.1,CPU", "xpu", ["GPU.1", "CPU"], "GPU.1, CPU"),
        # AUTO's parentheses hold a device that starts while the chosen one is being prepared.
        ("AUTO:CPU,GPU.1", "cpu", ["(CPU)"], "(CPU)"),
        # GenAI does not tell.
        ("AUTO", "xpu", None, "AUTO"),
        ("AUTO:-GPU", "cpu", None, None),
        ("GPU.1", "xpu", None, None),
    ],
)
def test_what_ran_and_what_was_measured(
    name: str, kind: str, told: list[str] | None, where: str | None
) -> None:
    assert device.ran_elsewhere(name, kind, told) == where


FIGURES = (
    *("mbu_measured", "mbu_datasheet", "mbu_measured_interval", "bandwidth_measured_gb_per_s"),
    *("bandwidth_datasheet_gb_per_s", "peak_tflop_per_s", "prompt_share_of_peak"),
)


@pytest.mark.usefixtures("renamed")
@pytest.mark.parametrize(
    ("name", "kind", "dtype", "measured", "ran_on"),
    [
        ("AUTO", "xpu", "float16", "GPU.1", "CPU"),
        ("AUTO:CPU,GPU.1", "cpu", "bfloat16", "CPU", "GPU.1"),
    ],
)
def test_no_figure_of_a_device_that_did_not_run(
    xpubench: CommandLine,
    llama_ir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: str,
    dtype: str,
    measured: str,
    ran_on: str,
) -> None:
    monkeypatch.setattr(RenamedCore, "ran_on", [ran_on])
    done = run(xpubench, llama_ir, tmp_path, "--runtime", "openvino-base", "--ov-device", name)
    assert done.code == 0, done.err
    (record,) = done.records
    subject, found = record["spec"]["subject"], record["environment"]["device"]
    assert (subject["device"], subject["dtype"]) == (kind, dtype)
    assert found == dict.fromkeys(found) | {"kind": kind, "name": ran_on}
    assert any(f"ran on {ran_on}, and {measured} was measured: no MBU" in one for one in record["warnings"])
    assert [record["summary"][figure] for figure in FIGURES] == [None] * len(FIGURES)
    assert (record["bandwidth"], record["peak"], record["expectation"]) == (None, None, None)


@pytest.mark.usefixtures("renamed")
def test_the_figures_of_the_device_that_auto_ran_on(
    xpubench: CommandLine, llama_ir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RenamedCore, "ran_on", ["GPU.1"])
    done = run(xpubench, llama_ir, tmp_path, "--runtime", "openvino-base", "--ov-device", "AUTO")
    assert done.code == 0, done.err
    (record,) = done.records
    assert record["environment"]["device"]["name"] == "Intel(R) Arc(TM) B580 Graphics (dGPU)"
    assert record["summary"]["mbu_measured"] > 0
    assert record["summary"]["bandwidth_datasheet_gb_per_s"] == 456
    assert not any("no MBU" in one for one in record["warnings"])


@pytest.mark.parametrize(
    ("runtime", "name"),
    [("openvino", "MULTI:CPU"), ("openvino-base", "HETERO:CPU"), ("openvino-genai", "AUTO:CPU")],
)
def test_devices_that_share_work_out(
    xpubench: CommandLine, llama_ir: Path, tmp_path: Path, runtime: str, name: str
) -> None:
    done = run(xpubench, llama_ir, tmp_path, "--runtime", runtime, "--ov-device", name, "--dtype", "float32")
    assert done.code == 0, done.err
    (record,) = done.records
    assert record["spec"]["subject"]["options"]["device"] == name
    assert record["environment"]["device"]["kind"] == "cpu"
    assert record["summary"]["mbu_measured"] > 0


def test_what_openvino_refuses_on_devices_that_share_is_unsupported(
    xpubench: CommandLine, llama_ir: Path, tmp_path: Path
) -> None:
    done = run(xpubench, llama_ir, tmp_path, "--runtime", "openvino-genai", "--ov-device", "MULTI:CPU")
    assert done.code == 1
    assert done.records[0]["status"] == "unsupported"
    assert "GenAI: " in done.error_line


def test_the_bandwidth_is_that_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's product on the CPU reaches about what torch's does."""
    from xpubench.measure.bandwidth import measure_bandwidth

    monkeypatch.setattr(device, "BUFFER_BYTES", 2**28)
    found = device.OpenVinoDevice("CPU").bandwidth("float32").ceiling_gb_per_s
    by_torch = measure_bandwidth("cpu", "float32", 5).ceiling_gb_per_s
    assert 0.2 < found / by_torch < 5


def test_the_peak_is_that_of_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's product on the CPU reaches about what torch's does, and is timed once in a process."""
    from xpubench.measure.matmul import measure_peak

    monkeypatch.setattr(device, "PEAK_SIZE", 512)
    device._matrix_peak.cache_clear()
    found = device.OpenVinoDevice("CPU").matrix_peak("float32")
    assert found is not None
    assert found.tflop_per_s == 2 * 512**3 / min(found.times_ns) / 1e3
    assert 0.1 < found.tflop_per_s / measure_peak("cpu", "float32").tflop_per_s < 10
    assert device.OpenVinoDevice("CPU").matrix_peak("float32") is found
    device._matrix_peak.cache_clear()


@pytest.mark.usefixtures("renamed")
def test_what_an_npu_tells() -> None:
    facts = device.OpenVinoDevice("NPU").facts()
    assert (facts.kind, facts.name, facts.driver) == ("npu", "Intel(R) AI Boost", "17")
    assert (facts.total_memory_bytes, facts.free_memory_bytes) == (16 * GIB, 12 * GIB)
    assert device.OpenVinoDevice("NPU").peak_bytes() is None


GENAI = ["--runtime", "openvino-genai", "--ov-device", "NPU"]


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each pipeline that GenAI makes for an NPU, where the CPU computes instead, as an NPU's
    pipeline does: on the stateful graph and without a scheduler."""
    genai = pytest.importorskip("openvino_genai")
    made: list[dict[str, Any]] = []
    real = genai.LLMPipeline

    def pipeline(directory: str, name: str, **arguments: Any) -> Any:
        made.append({"device": name} | arguments)
        taken = {
            key: value
            for key, value in arguments.items()
            if key not in ("MAX_PROMPT_LEN", "MIN_RESPONSE_LEN")
        }
        return real(directory, "CPU", ATTENTION_BACKEND="SDPA", **taken)

    monkeypatch.setattr(genai, "LLMPipeline", pipeline)
    return made


@pytest.mark.usefixtures("renamed")
def test_a_pipeline_on_an_npu(
    xpubench: CommandLine, llama_ir: Path, tmp_path: Path, pipelines: list[dict[str, Any]]
) -> None:
    """No scheduler, lengths as numbers, float16; what its lengths do not hold is refused with their names."""
    lengths = ("--ov-config", "MAX_PROMPT_LEN=32", "MIN_RESPONSE_LEN=16")
    done = run(xpubench, llama_ir, tmp_path, *GENAI, *lengths)
    assert done.code == 0, done.err
    (record,) = done.records
    assert pipelines == [
        {
            "device": "NPU",
            "INFERENCE_PRECISION_HINT": "f16",
            "MAX_PROMPT_LEN": 32,
            "MIN_RESPONSE_LEN": 16,
        }
    ]
    assert record["runtime"]["scheduler"] is None
    assert record["environment"]["device"]["kind"] == "npu"
    for flags, words in (
        (["--max-new-tokens", "17"], "--ov-config MIN_RESPONSE_LEN=17"),
        (["--input-tokens", "33"], "--ov-config MAX_PROMPT_LEN=33"),
        (["--batch-size", "2"], "one sequence at a time"),
    ):
        done = run(xpubench, llama_ir, tmp_path, *GENAI, *lengths, *flags)
        assert done.code == 1
        assert done.records[0]["status"] == "unsupported"
        assert words in done.error_line


@pytest.mark.usefixtures("renamed")
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--runtime", "openvino-base", "--ov-device", "NPU"], "openvino-genai runs them there"),
        (["--runtime", "openvino", "--ov-device", "NPU"], "openvino-genai runs them there"),
        ([*GENAI, "--ov-scheduler", "cache_size=1"], "leave out --ov-scheduler"),
        ([*GENAI, "--ov-config", "MAX_PROMPT_LEN=many"], "takes a number of tokens"),
        (
            ["--runtime", "openvino-genai", "--ov-config", "MAX_PROMPT_LEN=64", "--device", "cpu"],
            "only on an NPU",
        ),
        (["--runtime", "openvino-base", "--ov-device", "GPU.7"], "did you mean"),
        (["--runtime", "openvino-base", "--ov-device", "AUTO:GPU.7,CPU"], "did you mean"),
        (["--runtime", "openvino-base", "--ov-device", "CUP"], "did you mean CPU"),
        (["--runtime", "openvino-base", "--ov-device", "GPU", "--device", "cpu"], "leave one of the two out"),
        # A list that an NPU is part of is one for an NPU too, wherever it stands.
        (["--runtime", "openvino-base", "--ov-device", "AUTO:CPU,NPU"], "openvino-genai runs them there"),
        (["--runtime", "openvino", "--ov-device", "HETERO:CPU,NPU"], "openvino-genai runs them there"),
        ([*GENAI[:2], "--ov-device", "AUTO:CPU,NPU", "--ov-scheduler", "cache_size=1"], "--ov-scheduler"),
        (["--runtime", "openvino-base", "--ov-device", "MULTI"], "such as MULTI:GPU,CPU"),
        (["--runtime", "openvino-base", "--ov-device", "HETERO"], "such as HETERO:GPU,CPU"),
        (["--runtime", "openvino-base", "--ov-device", "HETERO:-CPU"], "such as HETERO:GPU,CPU"),
        (["--runtime", "openvino-base", "--ov-device", "AUTO:-CPU,-GPU"], "leaves no device"),
        (["--runtime", "openvino-base", "--ov-device", "AUTO:-CPU", "--device", "cpu"], "no cpu"),
        (
            [
                *("--runtime", "openvino-base", "--ov-device", "AUTO"),
                "--ov-config",
                "MULTI_DEVICE_PRIORITIES=CPU",
            ],
            "--ov-device AUTO:CPU",
        ),
    ],
)
def test_wrong_names_and_what_a_device_does_not_do(
    xpubench: CommandLine, llama_ir: Path, tmp_path: Path, flags: list[str], words: str
) -> None:
    done = run(xpubench, llama_ir, tmp_path, *flags)
    assert done.code == 2, done.err
    assert words in done.error_line
    assert not list((tmp_path / "results").glob("*.json"))


@pytest.mark.parametrize("runtime", ["openvino-base", "openvino-genai"])
def test_a_runtime_without_torchs_models_does_not_import_them(runtime: str) -> None:
    """Their import takes longer than the rest of a start."""
    code = (
        "import sys; from xpubench.runtimes.registry import loader; "
        f"loader({runtime!r}).set_up(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "xpubench.runtimes.openvino.runtime" in modules
    assert not modules & {"torch._dynamo", "transformers.modeling_utils", "sklearn"}
