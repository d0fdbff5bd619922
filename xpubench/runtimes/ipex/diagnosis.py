"""Whether IPEX can run here."""

from xpubench.catalog.defects import defects
from xpubench.runtimes.findings import Finding, MachineFacts, on_xpu, probe
from xpubench.runtimes.ipex.options import IpexOptions

INSTALL_CPU = "pip install intel-extension-for-pytorch==2.8.0 in an environment of its own, with torch 2.8.0"
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
    name, built = f"IPEX {ipex.get('version', '')}", bool(ipex.get("xpu_build"))
    lacking = f"IPEX {ipex['error']}" if "error" in ipex else None
    cpu = Finding("IPEX on cpu", "ready", name)
    if lacking is not None:
        cpu = Finding("IPEX on cpu", "missing", lacking, INSTALL)
    elif built:
        cpu = Finding("IPEX on cpu", "missing", f"{name} is built for xpu alone", INSTALL_CPU)
    unbuilt = Finding("IPEX on xpu", "missing", lacking or f"{name} is built for the cpu alone", INSTALL)
    xpu = on_xpu("IPEX on xpu", facts, name, built, unbuilt)
    if built and ipex.get("xpu"):
        xpu = Finding("IPEX on xpu", "ready", name)
    if not built:
        return [cpu, xpu]
    known = [one for one in defects() if one.runtime == IpexOptions.name()]
    return [cpu, xpu, *(Finding(one.where, "known defect", f"{one.text} ({one.source})") for one in known)]
