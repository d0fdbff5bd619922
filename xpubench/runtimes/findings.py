"""What a runtime's stack lacks on this machine, found without importing the stack into this process."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import msgspec

PROBE_SECONDS = 120
INSTALL_DRIVER = "sudo apt-get install libze1 libze-intel-gpu1 intel-opencl-icd"
JOIN_RENDER = "sudo usermod -aG render $USER"

# What was read from a machine, by name. `intel_gpus` and `level_zero` tell of the GPUs, `packages` holds the
# installed versions by package; each diagnosis adds the facts that it needs.
MachineFacts = dict[str, Any]


class Finding(msgspec.Struct, frozen=True):
    """Whether a capability is there, why, and the command that would install it. Its state is "not on this
    machine" where the machine cannot have it, and "known defect" for something that an installed stack
    does wrong."""

    capability: str
    state: Literal["ready", "missing", "not on this machine", "known defect"]
    detail: str
    install: str | None = None


class Diagnosis(Protocol):
    """A runtime's module of this form finds what its stack lacks."""

    def facts(self) -> MachineFacts:
        """Reads what the findings need from this machine."""

    def diagnose(self, facts: MachineFacts) -> list[Finding]:
        """The findings that follow from all facts of a machine."""


def extra(capability: str, facts: MachineFacts, packages: tuple[str, ...], name: str) -> Finding:
    """Whether the packages of this project's extra of that name are installed."""
    versions = {package: facts["packages"].get(package) for package in packages}
    if lacking := ", ".join(package for package, version in versions.items() if version is None):
        return Finding(capability, "missing", f"not installed: {lacking}", f"pip install '.[{name}]'")
    detail = ", ".join(f"{package} {version}" for package, version in versions.items())
    return Finding(capability, "ready", detail)


def on_xpu(capability: str, facts: MachineFacts, stack: str, built: bool, unbuilt: Finding) -> Finding:
    """The reason why a stack sees no Intel GPU: there is none, its driver is missing, or the stack is not
    `built` for it, which is the finding `unbuilt`."""
    states, nodes = {gpu["state"] for gpu in facts["intel_gpus"]}, gpu_nodes(facts)
    # Under WSL 2 a GPU has no render node.
    if not states and not built and (facts["torch"] or {}).get("xpu"):
        return unbuilt
    if not states:
        return Finding(capability, "not on this machine", "no Intel GPU is visible")
    if "open" in states:
        loader = "" if facts["level_zero"] else ": the Level Zero loader is missing"
        detail = f"Intel GPU at {nodes}, but {stack} sees none{loader}"
        return Finding(capability, "missing", detail, INSTALL_DRIVER) if built else unbuilt
    if "denied" in states:
        detail = f"you may not open the Intel GPU at {nodes}; log in anew"
        return Finding(capability, "missing", detail, JOIN_RENDER)
    detail = f"Intel GPU, but no {nodes} in this container: start it with --device /dev/dri"
    return Finding(capability, "missing", detail)


def gpu_nodes(facts: MachineFacts) -> str:
    """The render nodes of the Intel GPUs."""
    return ", ".join(gpu["node"] for gpu in facts["intel_gpus"])


def older(version: str, wanted: tuple[int, int]) -> bool:
    """Whether the first two numbers of a package's version are below `wanted`."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < wanted


def probe(module: str, code: str) -> dict[str, Any] | None:
    """The JSON that the code prints as its last line, or `{"error": ...}`; None where the module is absent.

    The code runs in a process of its own, because importing a broken stack can end the process.
    """
    if find_spec(module) is None:
        return None
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"does not import within {PROBE_SECONDS} s"}
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        return {"error": f"does not import: {lines[-1].strip() if lines else f'exit code {done.returncode}'}"}
    return found
