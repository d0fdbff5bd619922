"""The flags, options and description of the IPEX runtime."""

import argparse
from typing import TYPE_CHECKING, ClassVar, Self, cast

from xpubench.runtimes.options import NEURAL_COMPRESSOR_METHOD, Flag, RuntimeDescription, flag
from xpubench.runtimes.pytorch.options import (
    COMPILE_FLAGS,
    PyTorchOptions,
    TransformersDescription,
    compile_backend,
)

if TYPE_CHECKING:
    from xpubench.spec import Subject

INSTALL = "install the IPEX stack in an environment of its own: pip install -r requirements-ipex-xpu.txt"
FLAGS = (
    flag("--disable_optimize_transformers", action="store_true", help="plain ipex.optimize"),
    flag("--disable-auto-cast", action="store_true", help="run without autocast"),
    flag("--allow-unoptimized", action="store_true", help="measure a model that IPEX left as it was"),
)
# Unless this variable is set when IPEX is imported, IPEX's output heads give the last position's logits only.
SCORING_VARIABLES = {"LLM_ACC_TEST": "1"}
# Model types whose batches are scored a sequence at a time: IPEX takes their further rows for beams.
SCORED_ALONE = frozenset({"gptj", "baichuan"})
FLAGS_TITLE = "IPEX (with --ipex)"


class IpexDescription(TransformersDescription, kw_only=True, frozen=True, tag="ipex"):
    """A model after IPEX: the number of its decoder blocks, how many of them `ipex.llm.optimize` replaced,
    whether these are all, whether the model runs under autocast, the variables that the stack needs
    (None: not set), and the engine of its kernels (None for the CPU build)."""

    ipex_optimized: bool | None = None
    decoder_blocks: int | None = None
    optimized_blocks: int | None = None
    autocast: bool | None = None
    environment: dict[str, str | None] = {}
    compute_engine: str | None = None


class IpexOptions(PyTorchOptions, kw_only=True, frozen=True, tag="ipex"):
    """`ipex_optimize` is `ipex.llm.optimize` instead of plain `ipex.optimize`; `allow_unoptimized` measures a
    model that IPEX left as it was."""

    loader: ClassVar[str] = "xpubench.runtimes.ipex.runtime:IpexRuntime"
    description: ClassVar[type[RuntimeDescription]] = IpexDescription
    packages: ClassVar[tuple[str, ...]] = (
        *("intel-extension-for-pytorch", "neural-compressor", "neural-compressor-pt"),
        *("intel-cmplr-lib-ur", "intel-openmp", "intel-sycl-rt", "mkl", "pytorch-triton-xpu", "triton-xpu"),
    )
    diagnosis: ClassVar[str | None] = "xpubench.runtimes.ipex.diagnosis"
    preferred_where: ClassVar[str | None] = "IPEX on xpu"
    int4_method: ClassVar[str | None] = NEURAL_COMPRESSOR_METHOD
    # neural-compressor leaves table and head as they are.
    int4_head: ClassVar[str] = "high"
    # On the CPU IPEX runs INT4 models in float32 alone.
    int4_dtypes: ClassVar[dict[str, str]] = {"cpu": "float32"}
    scoring_variables: ClassVar[dict[str, str]] = SCORING_VARIABLES
    scored_alone: ClassVar[frozenset[str]] = SCORED_ALONE
    flags: ClassVar[tuple[Flag, ...]] = (*COMPILE_FLAGS, *FLAGS)
    flags_title: ClassVar[str] = FLAGS_TITLE
    shortcut: ClassVar[Flag | None] = flag("--ipex", help="optimize with ipex.llm.optimize (--runtime ipex)")

    ipex_optimize: bool = True
    autocast: bool = True
    allow_unoptimized: bool = False

    @classmethod
    def from_args(cls, args: argparse.Namespace, device: str) -> Self:
        return cls(
            torch_compile=compile_backend(args),
            ipex_optimize=not args.disable_optimize_transformers,
            autocast=not args.disable_auto_cast,
            allow_unoptimized=args.allow_unoptimized,
        )

    @property
    def defects_as(self) -> str | None:
        return IpexOptions.name() if self.ipex_optimize else None

    def identity(self) -> dict[str, object]:
        return {"runtime": self.name()} | self.set_fields()


def ipex_options(subject: "Subject") -> IpexOptions:
    """The subject's options; those of sharded runs have the same fields."""
    return cast("IpexOptions", subject.options)
