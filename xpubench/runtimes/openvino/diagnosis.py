"""Whether OpenVINO's runtimes can run here."""

from xpubench.runtimes.findings import Finding, MachineFacts, extra, probe

PACKAGES = ("openvino", "openvino-genai", "optimum-intel", "nncf")
PROBE = """
import json, openvino
print("\\n" + json.dumps({"version": openvino.__version__, "devices": openvino.Core().available_devices}))
"""


def facts() -> MachineFacts:
    """The version of OpenVINO and the devices that it sees."""
    return {"openvino": probe("openvino", PROBE)}


def diagnose(facts: MachineFacts) -> list[Finding]:
    """Whether the packages are installed, and the devices of OpenVINO."""
    finding = extra("OpenVINO", facts, PACKAGES, "openvino")
    openvino = facts["openvino"] or {"error": "does not import"}
    if finding.state != "ready":
        return [finding]
    if "error" in openvino:
        return [Finding("OpenVINO", "missing", f"OpenVINO {openvino['error']}", "pip install '.[openvino]'")]
    return [Finding("OpenVINO", "ready", f"{finding.detail}; devices: {', '.join(openvino['devices'])}")]
