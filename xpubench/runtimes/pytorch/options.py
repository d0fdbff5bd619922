"""The flags, options and description of stock PyTorch."""

import argparse
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import msgspec

from xpubench.errors import UserError
from xpubench.runtimes.options import Flag, RuntimeDescription, RuntimeOptions, flag

if TYPE_CHECKING:
    from xpubench.spec import Subject, Workload

DEFAULT_BACKEND = "inductor"
COMPILE_FLAGS = (
    flag("--torch-compile", action="store_true", help="run through torch.compile"),
    flag("--backend", metavar="NAME", help=f"torch.compile's backend (default: {DEFAULT_BACKEND})"),
)
ONEDNN_FLAG = flag(
    "--no-onednn-decode", action="store_true", help="on a CPU: compute the steps of one token without oneDNN"
)
# What oneDNN computes bfloat16 products with on a CPU: nothing of its own, vector units, or AMX tiles.
OneDnnBfloat16 = Literal["none", "vectors", "amx"]


class CompileCounters(msgspec.Struct, frozen=True, kw_only=True):
    """What torch.compile did since its last reset: graphs, breaks between them, and CUDA graphs that inductor
    gave up."""

    graphs: int
    graph_breaks: int
    cudagraph_skips: int


class TransformersDescription(RuntimeDescription, kw_only=True, frozen=True):
    """A model under transformers' `generate`: its class, the implementation of its attention, what
    torch.compile did, and with `--no-onednn-decode` the number of steps of one token, since the workload was
    prepared, in which torch said that oneDNN was off (None without the flag). `onednn_bfloat16` is what
    oneDNN computes bfloat16 products with on a CPU: none where it has no bfloat16 there, vectors or amx. Of a
    checkpoint that this tool quantized with data, `calibrated` is the recipe in words and `source` the
    checkpoint that it was made from."""

    model_class: str | None = None
    attention: str | None = None
    compile: CompileCounters | None = None
    steps_without_onednn: int | None = None
    onednn_bfloat16: OneDnnBfloat16 | None = None
    calibrated: str | None = None
    source: str | None = None

    @property
    def recipe_text(self) -> str | None:
        return self.calibrated or super().recipe_text

    @property
    def made_from(self) -> str | None:
        return self.source


class PyTorchDescription(TransformersDescription, kw_only=True, frozen=True, tag="pytorch"):
    """A model of stock PyTorch."""


class PyTorchOptions(RuntimeOptions, kw_only=True, frozen=True, tag="pytorch"):
    """`torch_compile` names the backend of torch.compile; None runs eagerly. With `onednn_decode` False, the
    steps of one token are computed while oneDNN is off, on a CPU; the prompt's pass is not."""

    loader: ClassVar[str] = "xpubench.runtimes.pytorch.runtime:PyTorchRuntime"
    description: ClassVar[type[RuntimeDescription]] = PyTorchDescription
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "torchao")
    diagnosis: ClassVar[str | None] = "xpubench.runtimes.pytorch.diagnosis"
    flags: ClassVar[tuple[Flag, ...]] = (*COMPILE_FLAGS, ONEDNN_FLAG)
    flags_title: ClassVar[str] = "PyTorch"

    torch_compile: str | None = None
    onednn_decode: bool = True

    @classmethod
    def from_args(cls, args: argparse.Namespace, device: str) -> Self:
        if args.no_onednn_decode and device != "cpu":
            raise UserError(f"{ONEDNN_FLAG.name} is for a CPU, and this run is on {device}; leave it out")
        return cls(torch_compile=compile_backend(args), onednn_decode=not args.no_onednn_decode)

    def identity(self) -> dict[str, object]:
        # The ids of runs on the default runtime do not name it.
        return self.set_fields()

    def advice(
        self, cause: str, subject: "Subject", workload: "Workload", description: RuntimeDescription | None
    ) -> list[str]:
        lines = []
        if cause in ("host", "launches") and self.torch_compile is None:
            static = " --use-static-cache" * (workload.cache != "static")
            lines.append(f"try --torch-compile{static}: the steps are not compiled")
        told = description.onednn_bfloat16 if isinstance(description, TransformersDescription) else None
        # Without bfloat16 in oneDNN the flag changes nothing, and nobody has tried it beside AMX.
        can = self.onednn_decode and ONEDNN_FLAG in self.flags and told == "vectors"
        quantized = description is not None and description.quantization is not None
        if cause == "kernels" and can and not quantized and _one_bfloat16_row(subject, workload):
            lines.append(f"try {ONEDNN_FLAG.name}: oneDNN's bfloat16 kernel is slow for one row")
        return lines

    @property
    def compiles(self) -> bool:
        return self.torch_compile is not None

    @property
    def explaining_variables(self) -> dict[str, str]:
        # The kernels that inductor makes for a CPU then tell their names to torch's profiler.
        return {"TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE": "1"} if self.compiles else {}

    @property
    def words(self) -> list[str]:
        compiled = [f"torch.compile {self.torch_compile}"] if self.torch_compile else []
        return compiled + ["decode without oneDNN"] * (not self.onednn_decode)

    @property
    def label(self) -> str:
        compiled = [self.torch_compile] if self.torch_compile else []
        return " + ".join([self.name(), *compiled, *["decode without oneDNN"] * (not self.onednn_decode)])


def compile_backend(args: argparse.Namespace) -> str | None:
    """The backend of torch.compile that the flags name, None where they ask for none; UserError where they
    contradict each other."""
    if args.backend is not None and not args.torch_compile:
        raise UserError("--backend names torch.compile's backend; give --torch-compile too, or leave it out")
    return (args.backend or DEFAULT_BACKEND) if args.torch_compile else None


def _one_bfloat16_row(subject: "Subject", workload: "Workload") -> bool:
    """Whether a step multiplies one row in bfloat16 with unquantized weights on a CPU."""
    sequences = workload.batch_size * workload.num_beams
    unquantized = subject.device == "cpu" and subject.dtype == "bfloat16" and subject.quantization is None
    return unquantized and sequences == 1
