"""Whether stock PyTorch can run here."""

from typing import Any

from xpubench.runtimes import findings
from xpubench.runtimes.findings import Finding, MachineFacts

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
    return {"torch": findings.probe("torch", PROBE)}


def diagnose(facts: MachineFacts) -> list[Finding]:
    """PyTorch on each device, and the kernels of INT4 weights."""
    torchao = findings.extra("INT4 weight-only (torchao)", facts, ("torchao",), "woq")
    torch = facts["torch"] or {}
    if torch.get("cuda"):
        cuda = findings.ready("PyTorch on cuda", f"torch {torch['version']}")
    else:
        cuda = findings.absent("PyTorch on cuda", "torch sees no NVIDIA GPU")
    return [_on_cpu(facts), _on_xpu(facts, torch), cuda, torchao]


def _on_cpu(facts: MachineFacts) -> Finding:
    capability, torch, transformers = "PyTorch on cpu", facts["torch"], facts["packages"].get("transformers")
    if torch is None or transformers is None:
        return findings.missing(capability, "torch or transformers is not installed", INSTALL)
    if "error" in torch:
        return findings.missing(capability, f"torch {torch['error']}", INSTALL)
    for name, version, oldest in (
        ("torch", torch["version"], OLDEST_TORCH),
        ("transformers", transformers, OLDEST_TRANSFORMERS),
    ):
        if findings.older(version, oldest):
            detail = f"{name} {version} is older than {'.'.join(map(str, oldest))}"
            return findings.missing(capability, detail, INSTALL)
    qwen3 = "; Qwen3 needs transformers 4.51" if findings.older(transformers, OLDEST_FOR_QWEN3) else ""
    return findings.ready(capability, f"torch {torch['version']}, transformers {transformers}{qwen3}")


def _on_xpu(facts: MachineFacts, torch: dict[str, Any]) -> Finding:
    capability = "PyTorch on xpu"
    if torch.get("xpu"):
        return findings.ready(capability, f"torch {torch['version']}")
    if unusable := findings.unusable_gpu(capability, facts):
        return unusable
    if torch.get("xpu_build"):
        return findings.unseen_gpu(capability, facts, "torch")
    has = f"torch {torch['version']} is built without xpu" if "version" in torch else "torch is not here"
    return findings.missing(capability, f"Intel GPU at {findings.gpu_nodes(facts)}, but {has}", INSTALL_XPU)
