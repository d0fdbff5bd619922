"""Turns the emulated xpu on in every Python process that has this directory on `PYTHONPATH`.

Python imports `sitecustomize` at its start. The emulation is installed when torch is first imported, so
that a command that needs no torch does not pay for it. IPEX's files are found from the start.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from types import ModuleType


class _TorchFinder(importlib.abc.MetaPathFinder):
    """Finds torch as Python would, and installs the emulation once torch is executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "torch":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            loader = spec.loader
            execute = loader.exec_module

            def execute_and_install(module: ModuleType) -> None:
                sys.meta_path.remove(self)
                execute(module)
                from tests.ipex_xpu import emulation

                emulation.install()

            loader.exec_module = execute_and_install  # type: ignore[method-assign]  # this loader alone
        return spec


sys.meta_path.insert(0, _TorchFinder())
if source := os.environ.get("IPEX_XPU_SOURCE"):
    sys.path.append(source)
