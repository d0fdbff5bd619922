"""The environment of a run, which can explain its figures: versions, device, host, load, variables,
commit."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

import xpubench
from xpubench.environment import DeviceFacts, Environment, HarnessFacts, HostFacts
from xpubench.measure.host import (
    cgroup_directories,
    cpu_name,
    free_host_bytes,
    read_text,
    total_host_bytes,
    transparent_huge_pages,
)

# Packages that belong to no runtime in particular.
PACKAGES = (
    *("torch", "transformers", "accelerate", "tokenizers", "safetensors", "numpy"),
    *("triton", "peft", "lm-eval"),
)
# The prefixes of the variables that are recorded.
VARIABLES = (
    *("ATEN_", "CUDA_", "IPEX_", "LLM_", "PYTORCH_", "TORCHINDUCTOR_", "TORCH_"),
    *("CCL_", "DNNL_", "I_MPI_", "MKL_", "MKLDNN_", "ONEAPI_", "ONEDNN_", "SYCL_", "UR_", "ZE_", "ZES_"),
    *("GLIBC_TUNABLES", "GOMP_", "KMP_", "LD_PRELOAD", "MALLOC_", "OMP_", "THP_MEM_ALLOC_ENABLE"),
)
SECRETS = ("TOKEN", "KEY", "SECRET", "PASSW", "CREDENTIAL", "AUTH")
CPUS = Path("/sys/devices/system/cpu")
NUMA_NODES = Path("/sys/devices/system/node")
BUSY = 0.5


def capture(device: DeviceFacts, packages: Iterable[str]) -> Environment:
    """The present environment, with the versions of `packages` where they are installed."""
    torch = sys.modules.get("torch")
    return Environment(
        harness=HarnessFacts(version=xpubench.__version__, commit=_commit()),
        python=platform.python_version(),
        platform=platform.platform(),
        versions=installed_versions((*PACKAGES, *packages)),
        device=device,
        host=HostFacts(
            cpu=cpu_name(),
            physical_cores=psutil.cpu_count(logical=False),
            logical_cores=psutil.cpu_count(),
            allowed_cores=len(os.sched_getaffinity(0)),
            cgroup_cores=_cgroup_cores(),
            numa_nodes=len(list(NUMA_NODES.glob("node[0-9]*"))) or None,
            governors=_governors(),
            turbo=_turbo(),
            load_average_1min=os.getloadavg()[0],
            total_memory_bytes=total_host_bytes(),
            available_memory_bytes=free_host_bytes(),
            torch_threads=None if torch is None else torch.get_num_threads(),
            transparent_huge_pages=transparent_huge_pages(),
        ),
        variables=relevant_variables(dict(os.environ)),
    )


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of the packages that are installed."""
    found = {package: _version(package) for package in packages}
    return {package: installed for package, installed in found.items() if installed is not None}


@cache
def _version(package: str) -> str | None:
    """The package's version, None where it is not installed. Reading it takes milliseconds, and what a
    process has imported stays what it was."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def relevant_variables(variables: dict[str, str]) -> dict[str, str]:
    """The variables that configure the stacks, without any whose name suggests a secret."""
    return {
        name: value
        for name, value in sorted(variables.items())
        if name.startswith(VARIABLES) and not any(word in name.upper() for word in SECRETS)
    }


def noise_warnings(environment: Environment) -> list[str]:
    """Warnings about what makes the figures of a run in this environment noisier than necessary."""
    host = environment.host
    if host is None or host.logical_cores is None or host.allowed_cores is None:
        return []
    cores, allowed = host.logical_cores, host.allowed_cores
    warnings = []
    # The load average counts the whole machine, including cores that this process may not use.
    if host.load_average_1min is not None and host.load_average_1min > BUSY * cores:
        warnings.append(
            f"the machine was busy before the run: load average {host.load_average_1min:.1f} on {cores} cores"
        )
    if host.torch_threads is not None and host.torch_threads > allowed:
        threads = f"torch's {host.torch_threads} threads share {allowed} allowed cores"
        warnings.append(f"{threads}; set OMP_NUM_THREADS={allowed}")
    elif allowed < cores:
        warnings.append(f"the process may use {allowed} of {cores} cores: the figures are not the machine's")
    if slow := [governor for governor in host.governors if governor != "performance"]:
        warnings.append(f"CPU frequency governor {', '.join(slow)}: set performance for steady figures")
    if host.cgroup_cores is not None and host.cgroup_cores < allowed:
        warnings.append(
            f"the container may use {host.cgroup_cores:g} of {allowed} cores: its limit makes pauses"
        )
    return warnings


def crowded_hosts(ranks: Sequence[tuple[str, int, set[int]]]) -> list[str]:
    """Warnings about hosts whose ranks together have more threads than cores. Each rank is given as its host,
    the number of its threads of torch, and the cores that it may use."""
    warnings = []
    for host in dict.fromkeys(host for host, _, _ in ranks):
        own = [(threads, cores) for place, threads, cores in ranks if place == host]
        count, threads = len(own), sum(threads for threads, _ in own)
        allowed = len(set[int]().union(*(cores for _, cores in own)))
        if count > 1 and threads > allowed:
            advice = f"set OMP_NUM_THREADS={allowed // count}" if count <= allowed else "start fewer ranks"
            shared = f"torch's {threads} threads of {count} ranks share {allowed} allowed cores of {host}"
            warnings.append(f"{shared}; {advice}")
    return warnings


def _commit() -> str | None:
    """The harness's git commit, with `-dirty` where files differ from it; None outside a checkout."""
    root = Path(xpubench.__file__).parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=10).strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _governors() -> list[str]:
    files = CPUS.glob("cpu[0-9]*/cpufreq/scaling_governor")
    return sorted({text for file in files if (text := read_text(file))})


def _turbo() -> bool | None:
    if no_turbo := read_text(CPUS / "intel_pstate/no_turbo"):
        return no_turbo == "0"
    boost = read_text(CPUS / "cpufreq/boost")
    return boost == "1" if boost else None


def _cgroup_cores() -> float | None:
    """The processor time, in cores, that the strictest cgroup allows; None without a limit."""
    limits = []
    for directory in cgroup_directories("cpu"):
        text = read_text(directory / "cpu.max") or " ".join(
            read_text(directory / name) or "" for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        )
        match text.split():
            case [quota, period] if quota.isdecimal() and int(period):  # no limit is "max" or -1
                limits.append(int(quota) / int(period))
    return min(limits, default=None)
