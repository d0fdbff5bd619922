"""OpenVINO's modules, imported without telemetry and without the network."""

import os
import sys
from typing import Any

from xpubench.errors import UserError

INSTALL = "install OpenVINO's stack in an environment of its own: pip install -r requirements-openvino.txt"


def import_openvino() -> Any:
    """The module `openvino`; UserError when it or a package that it needs is missing.

    The module `openvino_telemetry` is made impossible to import. Intel's tools all allow for its absence:
    nothing is sent then, and no consent file is written to the user's home.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise UserError(f"OpenVINO is not installed; {INSTALL}") from error
    return openvino


def import_optional(name: str) -> Any:
    """A module of OpenVINO's stack by its name; UserError when it is missing."""
    import_openvino()
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; {INSTALL}") from error
