"""Whether IPEX can run here."""

from xpubench.runtimes.findings import Finding, MachineFacts, on_xpu, probe

INSTALL = "pip install -r requirements-ipex-xpu.txt"
PROBE = """
import json, torch, intel_extension_for_pytorch as ipex
print("\\n" + json.dumps({
    "version": ipex.__version__,
    "xpu_build": hasattr(ipex, "has_xpu") and ipex.has_xpu(),
    "xpu": hasattr(torch, "xpu") and torch.xpu.is_available(),
}))
"""


def facts() -> MachineFacts:
    """The build of IPEX, and whether it sees a GPU."""
    return {"ipex": probe("intel_extension_for_pytorch", PROBE)}


def diagnose(facts: MachineFacts) -> list[Finding]:
    """IPEX on each device."""
    ipex = facts["ipex"] or {"error": "is not installed; it takes an environment of its own"}
    name = f"IPEX {ipex.get('version', '')}"
    lacking = f"IPEX {ipex['error']}" if "error" in ipex else None
    cpu = Finding("IPEX on cpu", "ready", name)
    if lacking is not None:
        cpu = Finding("IPEX on cpu", "missing", lacking, INSTALL)
    if ipex.get("xpu_build") and ipex.get("xpu"):
        return [cpu, Finding("IPEX on xpu", "ready", name)]
    unbuilt = Finding("IPEX on xpu", "missing", lacking or f"{name} is built for the cpu alone", INSTALL)
    return [cpu, on_xpu("IPEX on xpu", facts, name, bool(ipex.get("xpu_build")), unbuilt)]
