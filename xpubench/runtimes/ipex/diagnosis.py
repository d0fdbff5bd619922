"""Whether IPEX can run here."""

from xpubench.runtimes import findings
from xpubench.runtimes.findings import Finding, MachineFacts

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
    return {"ipex": findings.probe("intel_extension_for_pytorch", PROBE)}


def diagnose(facts: MachineFacts) -> list[Finding]:
    """IPEX on each device."""
    ipex = facts["ipex"] or {"error": "is not installed; it takes an environment of its own"}
    name = f"IPEX {ipex.get('version', '')}"
    lacking = f"IPEX {ipex['error']}" if "error" in ipex else None
    on_cpu, on_xpu = "IPEX on cpu", "IPEX on xpu"
    cpu = findings.missing(on_cpu, lacking, INSTALL) if lacking else findings.ready(on_cpu, name)
    if ipex.get("xpu_build") and ipex.get("xpu"):
        xpu = findings.ready(on_xpu, name)
    elif unusable := findings.unusable_gpu(on_xpu, facts):
        xpu = unusable
    elif ipex.get("xpu_build"):
        xpu = findings.unseen_gpu(on_xpu, facts, name)
    else:
        xpu = findings.missing(on_xpu, lacking or f"{name} is built for the cpu alone", INSTALL)
    return [cpu, xpu]
