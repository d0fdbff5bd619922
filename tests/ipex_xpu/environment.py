"""The environment of a command on the emulated device."""

import os
from pathlib import Path

from tests.ipex_xpu.emulation import SOURCE_VARIABLE
from tests.ipex_xpu.emulation.faults import FAULT_VARIABLE
from tests.ipex_xpu.emulation.profiles import AFFINITY_VARIABLE, COUNT_VARIABLE, PROFILE_VARIABLE
from tests.ipex_xpu.source import ROOT

# What the shell of whoever runs the tests may hold, and what changes the results of these commands.
CLEARED = (
    *("PYTHONPATH", "IPEX_COMPUTE_ENG", "LLM_ACC_TEST", "DS_ACCELERATOR", SOURCE_VARIABLE),
    *(AFFINITY_VARIABLE, COUNT_VARIABLE, PROFILE_VARIABLE, FAULT_VARIABLE),
)


def command_environment(source: Path | None, profile: str = "pvc", **variables: str) -> dict[str, str]:
    """The variables of a command on an emulated GPU, with IPEX where its source is given."""
    kept = {name: value for name, value in os.environ.items() if name not in CLEARED}
    hook = ROOT / "tests" / "ipex_xpu" / "hook"
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join((str(hook), str(ROOT))),
        PROFILE_VARIABLE: profile,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        **({} if source is None else {SOURCE_VARIABLE: str(source)}),
        **variables,
    }
