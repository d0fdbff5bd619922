"""Whether llama.cpp can run here."""

from xpubench.runtimes.findings import Finding, MachineFacts, probe

INSTALL = "pip install -r requirements-llama-cpp.txt"
# This runs in another process, because a build for a GPU can end the process where there is none.
PROBE = """
import json
from importlib.metadata import version
from xpubench.runtimes.llama_cpp.device import backend_devices
found = [one.name for one in backend_devices()]
print("\\n" + json.dumps({"version": version("llama-cpp-python"), "devices": found}))
"""


def facts() -> MachineFacts:
    """The version of llama-cpp-python and the devices that its build sees."""
    return {"llama_cpp": probe("llama_cpp", PROBE)}


def diagnose(facts: MachineFacts) -> list[Finding]:
    """Whether the package is installed, and the devices of its build."""
    found = facts.get("llama_cpp")
    if found is None:
        return [Finding("llama.cpp", "missing", "not installed: llama-cpp-python", INSTALL)]
    if "error" in found:
        return [Finding("llama.cpp", "missing", f"llama-cpp-python {found['error']}", INSTALL)]
    names = ", ".join(found["devices"])
    return [Finding("llama.cpp", "ready", f"llama-cpp-python {found['version']}; devices: {names}")]
