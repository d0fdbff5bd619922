"""The flags, options and descriptions of the runtimes that share one model among ranks."""

import argparse
from typing import TYPE_CHECKING, Any, ClassVar, Self

import msgspec

from xpubench.errors import UserError
from xpubench.explanation import Spread
from xpubench.runtimes.ipex import options as ipex
from xpubench.runtimes.options import Flag, RuntimeDescription, RuntimeOptions, flag
from xpubench.runtimes.pytorch.options import PyTorchOptions, TransformersDescription

if TYPE_CHECKING:
    from xpubench.spec import Subject, Workload

SHM_HELP = "on one host's CPU: sum through shared memory"
FLAGS = (
    flag("--shm", action="store_true", dest="shared_memory", help=SHM_HELP),
    flag("--ki", action="store_true", help="DeepSpeed's injected kernels, which are refused here"),
)


class RankFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A rank: where it runs, what it holds, and its peaks of memory during the load and during all."""

    rank: int
    host: str
    process: int
    device: str
    device_name: str
    weight_bytes: int
    load_peak_host_bytes: int | None = None
    peak_host_bytes: int | None = None
    peak_device_bytes: int | None = None
    torch_threads: int | None = None


class ShardedDescription(TransformersDescription, kw_only=True, frozen=True, tag="deepspeed"):
    """A sharded model: the backend of its collectives, whether they use shared memory, whether each rank read
    only its slices, the time in which the ranks sum one token's hidden state, on the one that takes longest,
    and its ranks."""

    backend: str | None = None
    shared_memory: bool = False
    reads_slices: bool | None = None
    sum_ns: Spread | None = None
    ranks: list[RankFacts] = []

    @property
    def time_of_a_sum(self) -> Spread | None:
        return self.sum_ns


class ShardedIpexDescription(ShardedDescription, kw_only=True, frozen=True, tag="deepspeed-ipex"):
    """A sharded model after IPEX, described as in `xpubench.runtimes.ipex.options`."""

    ipex_optimized: bool | None = None
    decoder_blocks: int | None = None
    optimized_blocks: int | None = None
    autocast: bool | None = None
    environment: dict[str, str | None] = {}
    compute_engine: str | None = None


class DeepSpeedOptions(RuntimeOptions, kw_only=True, frozen=True, tag="deepspeed"):
    """With `shared_memory`, the ranks of one host sum through its memory."""

    loader: ClassVar[str] = "xpubench.distributed.runtime:TensorParallelRuntime"
    description: ClassVar[type[RuntimeDescription]] = ShardedDescription
    packages: ClassVar[tuple[str, ...]] = ("deepspeed", "mpi4py", "oneccl", "oneccl-bind-pt")
    diagnosis: ClassVar[str | None] = "xpubench.distributed.diagnosis"
    int4_method: ClassVar[str | None] = None
    int4_refusal: ClassVar[str] = "INT4 runs on one device, not over ranks; leave out --woq"
    shards: ClassVar[str | None] = PyTorchOptions.name()
    flags: ClassVar[tuple[Flag, ...]] = FLAGS
    flags_title: ClassVar[str] = "ranks"

    shared_memory: bool = False

    @classmethod
    def from_args(cls, args: argparse.Namespace, device: str) -> Self:
        if args.ki:
            raise UserError(
                "--ki puts DeepSpeed's own kernels in place of the decoder blocks, which AutoTP and IPEX "
                "need as they are; leave it out"
            )
        if args.shared_memory and device != "cpu":
            raise UserError("--shm is for ranks on a CPU; leave it out")
        return cls(**cls.fields_from(args))

    def advice(
        self, cause: str, subject: "Subject", workload: "Workload", description: RuntimeDescription | None
    ) -> list[str]:
        # The threads of gloo send and sum beside those that compute.
        if cause == "clock" and subject.device == "cpu" and not self.shared_memory:
            return [
                "try --shm on one host, which a CPU without AVX-512 has in float32 alone, or give each rank "
                "a core more than its threads: gloo has threads of its own"
            ]
        return []


class DeepSpeedIpexOptions(DeepSpeedOptions, kw_only=True, frozen=True, tag="deepspeed-ipex"):
    """The fields of `xpubench.runtimes.ipex.options.IpexOptions` that ranks have."""

    loader: ClassVar[str] = "xpubench.distributed.runtime_ipex:TensorParallelIpexRuntime"
    description: ClassVar[type[RuntimeDescription]] = ShardedIpexDescription
    shards: ClassVar[str | None] = ipex.IpexOptions.name()
    scoring_variables: ClassVar[dict[str, str]] = ipex.SCORING_VARIABLES
    scored_alone: ClassVar[frozenset[str]] = ipex.SCORED_ALONE
    flags: ClassVar[tuple[Flag, ...]] = (*FLAGS, *ipex.FLAGS)

    ipex_optimize: bool = True
    autocast: bool = True
    allow_unoptimized: bool = False

    @property
    def defects_as(self) -> str | None:
        return ipex.IpexOptions.name() if self.ipex_optimize else None

    @classmethod
    def fields_from(cls, args: argparse.Namespace) -> dict[str, Any]:
        return super().fields_from(args) | {
            "ipex_optimize": not args.disable_optimize_transformers,
            "autocast": not args.disable_auto_cast,
        }
