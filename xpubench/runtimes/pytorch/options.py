"""The flags, options and description of stock PyTorch."""

import argparse
from typing import ClassVar, Self

import msgspec

from xpubench.errors import UserError
from xpubench.runtimes.options import Flag, RuntimeDescription, RuntimeOptions, flag

DEFAULT_BACKEND = "inductor"


class CompileCounters(msgspec.Struct, frozen=True, kw_only=True):
    """What torch.compile did since its last reset: graphs, breaks between them, and CUDA graphs that inductor
    gave up."""

    graphs: int
    graph_breaks: int
    cudagraph_skips: int


class TransformersDescription(RuntimeDescription, kw_only=True, frozen=True):
    """A model under transformers' `generate`: its class, the implementation of its attention, and what
    torch.compile did. Of a checkpoint that this tool quantized with data, `calibrated` is the recipe in words
    and `source` the checkpoint that it was made from."""

    model_class: str | None = None
    attention: str | None = None
    compile: CompileCounters | None = None
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
    """`torch_compile` names the backend of torch.compile; None runs eagerly."""

    loader: ClassVar[str] = "xpubench.runtimes.pytorch.runtime:PyTorchRuntime"
    description: ClassVar[type[RuntimeDescription]] = PyTorchDescription
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers", "torchao")
    diagnosis: ClassVar[str | None] = "xpubench.runtimes.pytorch.diagnosis"
    flags: ClassVar[tuple[Flag, ...]] = (
        flag("--torch-compile", action="store_true", help="run through torch.compile"),
        flag("--backend", metavar="NAME", help=f"torch.compile's backend (default: {DEFAULT_BACKEND})"),
    )
    flags_title: ClassVar[str] = "PyTorch"

    torch_compile: str | None = None

    @classmethod
    def from_args(cls, args: argparse.Namespace, device: str) -> Self:
        if args.backend is not None and not args.torch_compile:
            raise UserError(
                "--backend names torch.compile's backend; give --torch-compile too, or leave it out"
            )
        return cls(torch_compile=(args.backend or DEFAULT_BACKEND) if args.torch_compile else None)

    def identity(self) -> dict[str, object]:
        # The ids of runs on the default runtime do not name it.
        return self.set_fields()

    @property
    def words(self) -> list[str]:
        return [f"torch.compile {self.torch_compile}"] if self.torch_compile else []

    @property
    def label(self) -> str:
        return f"{self.name()} + {self.torch_compile}" if self.torch_compile else self.name()
