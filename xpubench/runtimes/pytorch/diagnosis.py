"""Whether stock PyTorch can run here."""

from typing import Any

from xpubench.runtimes.findings import Finding, MachineFacts, extra, gpu_nodes, older, on_xpu, probe

OLDEST_TORCH, OLDEST_TRANSFORMERS, OLDEST_FOR_QWEN3 = (2, 6), (4, 48), (4, 51)
INSTALL = "pip install -r requirements.txt"
INSTALL_XPU = "pip install -r requirements-xpu.txt"
PROBE = """
import json, torch
xpu = getattr(torch, "xpu", None)
print("\\n" + json.dumps({
    "version": torch.__version__,
    "cuda": torch.cuda.is_available(),
    "xpu": xpu is not None and xpu.is_available(),
    "xpu_build": bool(getattr(torch.version, "xpu", None)) or "+xpu" in torch.__version__,
}))
"""


def facts() -> MachineFacts:
    """The build of torch and the devices that it sees."""
    return {"torch": probe("torch", PROBE)}


def diagnose(facts: MachineFacts) -> list[Finding]:
    """PyTorch on each device, and the kernels of INT4 weights."""
    torchao = extra("INT4 weight-only (torchao)", facts, ("torchao",), "woq")
    torch = facts["torch"] or {}
    if torch.get("cuda"):
        cuda = Finding("PyTorch on cuda", "ready", f"torch {torch['version']}")
    else:
        cuda = Finding("PyTorch on cuda", "not on this machine", "torch sees no NVIDIA GPU")
    return [_on_cpu(facts), _on_xpu(facts, torch), cuda, torchao]


def _on_cpu(facts: MachineFacts) -> Finding:
    capability, torch, transformers = "PyTorch on cpu", facts["torch"], facts["packages"].get("transformers")
    if torch is None or transformers is None:
        return Finding(capability, "missing", "torch or transformers is not installed", INSTALL)
    if "error" in torch:
        return Finding(capability, "missing", f"torch {torch['error']}", INSTALL)
    for name, version, oldest in (
        ("torch", torch["version"], OLDEST_TORCH),
        ("transformers", transformers, OLDEST_TRANSFORMERS),
    ):
        if older(version, oldest):
            detail = f"{name} {version} is older than {'.'.join(map(str, oldest))}"
            return Finding(capability, "missing", detail, INSTALL)
    qwen3 = "; Qwen3 needs transformers 4.51" if older(transformers, OLDEST_FOR_QWEN3) else ""
    return Finding(capability, "ready", f"torch {torch['version']}, transformers {transformers}{qwen3}")


def _on_xpu(facts: MachineFacts, torch: dict[str, Any]) -> Finding:
    capability = "PyTorch on xpu"
    if torch.get("xpu"):
        return Finding(capability, "ready", f"torch {torch['version']}")
    has = f"torch {torch['version']} is built without xpu" if "version" in torch else "torch is not here"
    unbuilt = Finding(capability, "missing", f"Intel GPU at {gpu_nodes(facts)}, but {has}", INSTALL_XPU)
    return on_xpu(capability, facts, "torch", bool(torch.get("xpu_build")), unbuilt)
