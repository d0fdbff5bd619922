"""IPEX: a transformers model after `ipex.llm.optimize`, under autocast."""

import contextlib
import os
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from xpubench.errors import RunFailure, UserError
from xpubench.runtimes.base import Quantizer
from xpubench.runtimes.ipex.neural_compressor import check_recipe, load_rtn, save_rtn
from xpubench.runtimes.ipex.options import ipex_options
from xpubench.runtimes.pytorch.runtime import PyTorchRuntime
from xpubench.spec import Quantization, Subject, Workload
from xpubench.weights.load import LoadedWeights

INSTALL = "install the IPEX stack in an environment of its own: pip install -r requirements-ipex-xpu.txt"
NEEDED_VARIABLES = {"SYCL_PI_LEVEL_ZERO_USE_IMMEDIATE_COMMANDLISTS": "2"}
FORBIDDEN_VARIABLES = ("TORCH_LLM_ALLREDUCE",)
XPU_LAYERS = "intel_extension_for_pytorch.transformers.models.xpu"


class IpexRuntime(PyTorchRuntime):
    """A transformers model that IPEX optimized, or that the user allowed it to leave as it was."""

    optimized = False

    @classmethod
    def set_up(cls) -> None:
        set_environment()

    @classmethod
    def check(cls, subject: Subject) -> None:
        if subject.device not in ("xpu", "cpu"):
            raise UserError(f"IPEX runs on xpu and cpu, not on {subject.device}; leave out --ipex")
        super().check(subject)
        import_ipex()

    @classmethod
    def check_quantization(cls, subject: Subject, recipe: Quantization) -> None:
        """UserError when neural-compressor does not take the recipe here."""
        import_ipex()
        check_recipe(subject, recipe)

    @classmethod
    def quantizer(cls) -> Quantizer | None:
        return save_rtn

    @classmethod
    def weights(cls, subject: Subject) -> LoadedWeights:
        """The subject's model, quantized by neural-compressor where it asks for that."""
        if subject.quantization is None:
            return super().weights(subject)
        return load_rtn(subject, subject.quantization)

    def optimize(self) -> None:
        """Optimizes; RunFailure `unsupported` when that left the model as it was."""
        ipex = import_ipex()
        subject = self.subject
        model = self.model.eval().to(subject.device).to(memory_format=torch.channels_last)
        dtype = getattr(torch, subject.dtype)
        try:
            if ipex_options(subject).ipex_optimize:
                more = {}
                # The CPU's optimizer takes another kind of configuration and finds the INT4 layers itself.
                if subject.quantization is not None and subject.device == "xpu":
                    more["quantization_config"] = model.quantization_config
                model = ipex.llm.optimize(model, dtype=dtype, device=subject.device, inplace=True, **more)
            else:
                model = ipex.optimize(model, dtype=dtype, inplace=True)
        except RuntimeError as error:
            if "re-install IPEX" in str(error):
                raise UserError(f"this build of IPEX has no {subject.device}; {INSTALL}") from error
            raise
        self.model = model
        self.optimized = ipex_options(subject).ipex_optimize and is_optimized(model, subject.device)
        if (
            ipex_options(subject).ipex_optimize
            and not self.optimized
            and not ipex_options(subject).allow_unoptimized
        ):
            raise RunFailure(
                "unsupported",
                f"IPEX left {type(model).__name__} unoptimized; measure it so with --allow-unoptimized, "
                "or without --ipex",
            )
        super().optimize()

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        dtype = getattr(torch, self.subject.dtype)
        autocast = torch.autocast(
            self.subject.device, dtype=dtype, enabled=self.autocast and dtype != torch.float32
        )
        with super().inference(), autocast:
            yield

    @property
    def autocast(self) -> bool:
        """Whether the model runs under `torch.autocast`; float32 has nothing to cast to."""
        return ipex_options(self.subject).autocast and self.subject.dtype != "float32"

    def check_cache(self, workload: Workload, cache: Any) -> None:
        """Nothing: the optimized layers keep a cache of their own, which its type does not tell."""

    @cached_property
    def scores_rows_alone(self) -> bool:
        """No: the traced graph is the whole model."""
        return False

    def doubts_of_kernel(self) -> list[str]:
        return []

    def described(self) -> dict[str, Any]:
        return super().described() | {
            "ipex_optimized": self.optimized,
            "autocast": self.autocast,
            "environment": environment(),
        }


def set_environment() -> None:
    """Sets the variables that the stack needs, unless the user did, and removes those that it forbids."""
    for name, value in NEEDED_VARIABLES.items():
        os.environ.setdefault(name, value)
    for name in FORBIDDEN_VARIABLES:
        os.environ.pop(name, None)


def environment() -> dict[str, str | None]:
    """What holds of those variables; None is not set."""
    return {name: os.environ.get(name) for name in (*NEEDED_VARIABLES, *FORBIDDEN_VARIABLES)}


def import_ipex() -> Any:
    """The IPEX module; UserError when it is missing or does not fit the installed torch."""
    try:
        import intel_extension_for_pytorch as ipex
    except ModuleNotFoundError as error:
        if error.name == "intel_extension_for_pytorch":
            raise UserError(f"IPEX is not installed; {INSTALL}") from error
        raise UserError(f"IPEX does not import ({error}); {INSTALL}") from error
    except (Exception, SystemExit) as error:  # a misfit ends in whatever its own error handling raises
        raise UserError(
            f"IPEX {_version('intel_extension_for_pytorch')} does not fit torch {_version('torch')} and "
            f"transformers {_version('transformers')}; {INSTALL}"
        ) from error
    return ipex


def is_optimized(model: torch.nn.Module, device: str) -> bool:
    """Whether `ipex.llm.optimize` did its work: it traces the model on the CPU and replaces the layers by
    its own classes on xpu, and returns a model that it does not know as it was."""
    if device == "cpu":
        return hasattr(model, "trace_graph")
    return any(type(module).__module__.startswith(XPU_LAYERS) for module in model.modules())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
