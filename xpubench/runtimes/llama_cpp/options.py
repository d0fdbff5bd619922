"""The flags, options and description of llama.cpp."""

import argparse
import re
from pkgutil import resolve_name
from typing import Any, ClassVar, Literal, Self, get_args

import msgspec

from xpubench.errors import RunFailure, UserError
from xpubench.runtimes.options import (
    Flag,
    RuntimeDescription,
    RuntimeOptions,
    default_dtype,
    flag,
    type_bytes,
)

# The types that the KV cache can have, by the names that llama.cpp's own flags use.
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
# The function that reads a GGUF's header. Like the loader, it is named here and not imported, because specs
# and records import this module, and the functions that read files are in layers above them.
READER = "xpubench.runtimes.llama_cpp.gguf_file:read_gguf"
WHOLE_CACHE_TYPES = ("f32", "f16", "bf16")
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# The names of quantized types, each with the bits of a value: 4 in Q4_1, Q4_K, IQ4_XS and MXFP4. The scales
# and minima of its blocks come on top. Those of TQ1_0 are ternary.
TYPES = {dtype: kind for kind, dtype in FLOATS.items()}
QUANTIZED = re.compile(r"(?:I?Q|TQ|MXFP|NVFP)(\d)")
# A type with a smaller share of a GGUF's bytes is not named in its recipe.
LEAST_SHARE = 0.01
FLAGS = (
    flag(
        "--cache-type-k", choices=get_args(CacheType), help="type of the keys in the KV cache (default: f16)"
    ),
    flag(
        "--cache-type-v",
        choices=get_args(CacheType),
        help="type of the values in the KV cache (default: f16)",
    ),
    flag("--flash-attn", choices=("auto", "on", "off"), help="flash attention (default: auto)"),
    flag(
        "--dequantize",
        action="store_true",
        help="run the GGUF's weights in --dtype: they are converted once, and the file stays in the cache",
    ),
    flag("--n-gpu-layers", type=int, metavar="N", help="layers on the GPU (default: all)"),
    flag("--threads", type=int, metavar="N", help="threads of the inference on the CPU"),
)


class GgmlDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device that this build of llama.cpp found: the name and description that llama.cpp gives it, its
    kind, and its memory (None where the backend reports 0)."""

    name: str
    description: str
    kind: str
    total_memory_bytes: int | None = None


class LlamaPerf(msgspec.Struct, frozen=True, kw_only=True):
    """llama.cpp's own counters since the workload's context was made: the times and numbers of tokens of its
    passes over prompts and over single tokens."""

    prompt_ms: float
    prompt_tokens: int
    eval_ms: float
    eval_tokens: int


class LlamaCppDescription(RuntimeDescription, kw_only=True, frozen=True, tag="llama-cpp"):
    """A loaded GGUF: its files, llama.cpp's description of it, the type of most of its weights, the bytes of
    its tensors of each type, and the checkpoint that it was converted from, where that is known.
    `dequantized_from` is the type that the weights have in the file that was given, where `--dequantize`
    converted them. `build` is
    llama.cpp's description of itself, `devices` are all devices that it found, and `device` is the one that
    runs the layers (None for the CPU). `flash_attention` is None where llama.cpp decides and does not report
    it. The sizes of the context and `perf` belong to the last workload; `perf` is None for batches, because
    llama.cpp counts their steps as prompts."""

    files: list[str] = []
    model: str | None = None
    weights: str = ""
    tensor_bytes: dict[str, int] = {}
    source: str | None = None
    dequantized_from: str | None = None
    build: str | None = None
    devices: list[GgmlDevice] = []
    device: str | None = None
    gpu_layers: int = 0
    threads: int | None = None
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    flash_attention: bool | None = None
    context_tokens: int | None = None
    batch_tokens: int | None = None
    perf: LlamaPerf | None = None

    @property
    def precision_class(self) -> str | None:
        return precision_of_type(self.weights)

    @property
    def went_through(self) -> str | None:
        return precision_of_type(self.dequantized_from or self.weights)

    @property
    def recipe_text(self) -> str | None:
        """The types with their shares of the bytes; None for floating point weights."""
        if not QUANTIZED.match(self.weights):
            return None
        total = sum(self.tensor_bytes.values())
        by_size = sorted(self.tensor_bytes.items(), key=lambda one: -one[1])
        shares = [f"{name} {size / total:.0%}" for name, size in by_size if size >= LEAST_SHARE * total]
        return f"GGUF {', '.join(shares)} of the bytes" if len(shares) > 1 else f"GGUF {self.weights}"

    @property
    def made_from(self) -> str | None:
        return self.source


class LlamaCppOptions(RuntimeOptions, kw_only=True, frozen=True, tag="llama-cpp"):
    """The options of llama.cpp. `weights` is the type that most values of the GGUF's blocks have, by
    llama.cpp's name for it, empty where the file could not be read; with `dequantize` it is the type that
    they are converted to before the load. Where `n_gpu_layers` is None, a GPU gets
    all layers, and where `threads` is None, llama.cpp uses as many threads as torch."""

    loader: ClassVar[str] = "xpubench.runtimes.llama_cpp.runtime:LlamaCppRuntime"
    description: ClassVar[type[RuntimeDescription]] = LlamaCppDescription
    diagnosis: ClassVar[str | None] = "xpubench.runtimes.llama_cpp.diagnosis"
    packages: ClassVar[tuple[str, ...]] = ("llama-cpp-python",)
    int4_method: ClassVar[str | None] = None
    int4_refusal: ClassVar[str] = "a GGUF is quantized when it is made: give such a file instead of --woq"
    flags: ClassVar[tuple[Flag, ...]] = FLAGS
    flags_title: ClassVar[str] = "llama.cpp"

    weights: str = ""
    dequantize: bool = False
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    flash_attn: Literal["auto", "on", "off"] = "auto"
    n_gpu_layers: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, value, least in (
            ("--threads", self.threads, 1),
            ("--n-gpu-layers", self.n_gpu_layers, 0),
        ):
            if value is not None and value < least:
                raise UserError(f"{name} must be at least {least}, not {value}")
        if self.flash_attn == "off" and self.cache_type_v not in WHOLE_CACHE_TYPES:
            raise UserError(
                f"--cache-type-v {self.cache_type_v} needs flash attention; leave out --flash-attn off"
            )

    @classmethod
    def from_args(cls, args: argparse.Namespace, device: str) -> Self:
        if device == "cpu" and args.n_gpu_layers:
            raise UserError("--n-gpu-layers is for a GPU; leave it out with --device cpu")
        given = {name: value for name, value in cls.fields_from(args).items() if value is not None}
        if args.dequantize:
            return cls(weights=TYPES[args.dtype or default_dtype(device)], **given)
        header = _header(args.model_id)
        return cls(weights="" if header is None else header.weights, **given)

    @property
    def words(self) -> list[str]:
        caches = [] if self._cache == "f16" else [f"KV {self._cache}"]
        return [word for word in (self.weights, *caches) if word]

    @property
    def precision(self) -> str | None:
        return precision_of_type(self.weights)

    def weight_bytes(self, model: str, parameters: int) -> int | None:
        if self.dequantize:
            return None  # They take what the dtype says.
        return None if (header := _header(model)) is None else int(header.weight_bytes)

    @property
    def least_kv_value_bytes(self) -> float | None:
        return (type_bytes(self.cache_type_k) + type_bytes(self.cache_type_v)) / 2

    @property
    def _cache(self) -> str:
        k, v = self.cache_type_k, self.cache_type_v
        return k if k == v else f"{k}/{v}"


def precision_of_type(weights: str) -> str | None:
    """The precision class of weights of a GGUF's type: the dtype, or `int` with the bits of a quantized
    value, so that only a type of 4 bits is int4 and only one of 8 is int8. Another type's own name is its
    class; None for an empty one."""
    if weights in FLOATS:
        return FLOATS[weights]
    bits = QUANTIZED.match(weights)
    return f"int{bits[1]}" if bits else weights.lower() or None


def _header(model: str) -> Any:
    """The header of the GGUF that a model names (`gguf_file.Gguf`). None where there is none: the run then
    reports it, so that a suite goes on with its other models."""
    try:
        return resolve_name(READER)(model)
    except (UserError, RunFailure):
        return None
