"""Whether several ranks can share a model here."""

import shutil

from xpubench.runtimes.findings import Finding, MachineFacts, extra


def facts() -> MachineFacts:
    """The launcher of the ranks, None where there is none."""
    return {"mpirun": shutil.which("mpirun")}


def diagnose(facts: MachineFacts) -> list[Finding]:
    """DeepSpeed with its launcher."""
    capability = "DeepSpeed AutoTP"
    finding = extra(capability, facts, ("deepspeed", "mpi4py"), "deepspeed")
    if finding.state == "ready" and facts["mpirun"] is None:
        finding = Finding(capability, "missing", "no mpirun on PATH", "pip install mpich")
    # The extra's MPICH would take the place of oneAPI's mpirun, which PyTorch's xpu build brings (impi-rt).
    if finding.install is not None and facts["intel_gpus"]:
        install = "pip install deepspeed mpi4py impi-rt"
        finding = Finding(capability, "missing", finding.detail, install)
    return [finding]
