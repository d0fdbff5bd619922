"""`python -m tests.ipex_xpu.mended SCRIPT ARGUMENT ...`: a script on an IPEX whose MLPs sum over ranks.

IPEX's MLP of Qwen2, Qwen3 and Phi-3 adds the residual to this rank's part of the output, and leaves out the
sum over the ranks. Here the residual is divided by the ranks and the result summed, as IPEX does for Llama.
"""

import importlib
import runpy
import sys
from collections.abc import Callable
from typing import Any

MODULES = "intel_extension_for_pytorch.transformers.models.xpu.optimize_transformers.modules"
METHODS = {
    "IPEXTransformerMLPOptimizedFp16SiluQwen": "out_mm",
    "IPEXTransformerMLPOptimizedFp16SiluPhi3": "forward",
}


def summed(compute: Callable[..., Any]) -> Callable[..., Any]:
    """A method of IPEX's MLP whose result is summed over the ranks."""

    def over_ranks(self: Any, hidden_states: Any, residual: Any) -> Any:
        return self.all_reduce_if_necessary(compute(self, hidden_states, residual / self.tp_size))

    return over_ranks


def main(script: str, *arguments: str) -> None:
    """Mends IPEX in this process and runs the script."""
    mlps = importlib.import_module(f"{MODULES}.transformer_modules.Mlp")
    for name, method in METHODS.items():
        kind = getattr(mlps, name)
        setattr(kind, method, summed(getattr(kind, method)))
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
