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


def _install_emulation() -> None:
    from tests.ipex_xpu import emulation

    emulation.install()


def _observe_generation() -> None:
    from tests.ipex_xpu import observation

    observation.install()


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds the modules of its table as Python would, and calls their functions once they are executed."""

    def __init__(self) -> None:
        self.waiting = {"torch": _install_emulation}
        if os.environ.get("XPU_EMULATION_TOKENS"):
            self.waiting["transformers.generation.utils"] = _observe_generation

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.waiting:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            loader = spec.loader
            execute = loader.exec_module

            def execute_and_call(module: ModuleType) -> None:
                # Not when it was found: libraries also look whether torch is there without importing it.
                call = self.waiting.pop(fullname, None)
                execute(module)
                if call is not None:
                    call()

            loader.exec_module = execute_and_call  # type: ignore[method-assign]  # of this loader alone
        return spec


sys.meta_path.insert(0, _AfterImport())
if source := os.environ.get("IPEX_XPU_SOURCE"):
    sys.path.append(source)
