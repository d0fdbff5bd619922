"""Where the source of IPEX's xpu build is."""

import os
from pathlib import Path

from tests.ipex_xpu.emulation import SOURCE_VARIABLE

ROOT = Path(__file__).parents[2]
TAG = "v2.8.10+xpu"
PACKAGE = "intel_extension_for_pytorch"
# One that lies beside the checkout, and the clone that `make ipex-xpu-source` makes.
BESIDE = ROOT.parent / "shared" / "reference" / "ipex-xpu-2.8.10"
CLONE = ROOT / ".ipex-xpu-source"
HOW = (
    f"no source of IPEX {TAG}: `make ipex-xpu-source` clones it, "
    f"or {SOURCE_VARIABLE} names a directory with it"
)


def find_source() -> Path | None:
    """The directory that holds IPEX's package of the xpu build; None where there is none."""
    named = os.environ.get(SOURCE_VARIABLE)
    places = [Path(named)] if named else [BESIDE, CLONE]
    layers = Path(PACKAGE, "transformers", "models", "xpu", "optimize_transformers")
    return next((place.resolve() for place in places if (place / layers).is_dir()), None)
