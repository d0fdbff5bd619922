"""Which part of a token's time an operator or a kernel is, by its name.

The names are those of stock PyTorch on xpu, cuda and cpu, of oneDNN, cuBLAS, CUTLASS, torchao, inductor and
of IPEX's operators. A name that no pattern matches is unknown, and is shown as such. The first pattern of a
table that matches counts.
"""

import re
from functools import cache

from xpubench.explanation import PartName

# The parts that a device computes; the other ones are the host's.
KERNELS: tuple[PartName, ...] = (
    "weights",
    "attention",
    "other_kernels",
    "unknown_kernels",
    "collectives",
)
# Views, allocations and queries about a tensor: they compute nothing.
HOST = (
    r"aten::(view|_unsafe_view|_reshape_alias|t|transpose|permute|as_strided|slice|select|narrow|expand|chunk|"
    r"expand_as|unsqueeze|squeeze|split|split_with_sizes|unbind|unflatten|flatten|alias|detach|detach_|"
    r"view_as|numpy_T|movedim|swapaxes|swapdims|lift_fresh|real|broadcast_to)_?",
    r"aten::(empty|empty_like|empty_strided|new_empty|new_empty_strided|resize_|resize_as_|set_|result_type|"
    r"resolve_conj|resolve_neg|is_nonzero|item|_local_scalar_dense|_has_compatible_shallow_copy_type|"
    r"can_cast|is_same_size|_nested_tensor_size|_fused_sdp_choice|record_stream|_to_cpu|detach_)",
    r"(Torch-Compiled Region|TorchDynamo|CompiledFunction|Pregraph|AOTDispatcher).*",
    r"(PythonDispatchMode|PythonSubclass|PythonTLSSnapshot|FuncTorch\w*)",
    r"xpubench::.*",
    r"(ProfilerStep|Optimizer\.|DataLoader|enumerate).*",
    # DeepSpeed's layers whose results no other rank has a part in.
    r"(Async)?ColumnParallel|ScatterToTensorParallelRegion",
)
# Operators that leave their work to other operators, so that their own time is the host's dispatch.
COMPOSED = (
    r"aten::(linear|matmul|einsum|scaled_dot_product_attention|reshape|to|_to_copy|contiguous|type_as|clone|"
    r"embedding|softmax|dropout|layer_norm|rms_norm|repeat_interleave|ones|zeros|ones_like|zeros_like|full|"
    r"full_like|new_ones|new_zeros|new_full|index_put_|argsort|__\w+__|conv1d|convolution|_convolution|stack|"
    r"hstack|pad|bitwise_and|div_|square|expand_as)",
    r"(torchao|quantized|onednn|mkldnn)::\w*",
)
OPERATORS: tuple[tuple[PartName, str], ...] = (
    ("collectives", r"(gloo|nccl|xccl|oneccl|mpi|c10d|record_param_comms|_c10d_functional)(:|$|_).*"),
    ("collectives", r"deepspeed(_comm)?::.*(all_reduce|allreduce|all_gather|broadcast).*"),
    # DeepSpeed's layers wait in their own time for the collective that they started.
    ("collectives", r"RowParallel|GatherFromTensorParallelRegion"),
    ("attention", r"aten::(_?scaled_dot_product_\w+|_flash_attention\w*|_efficient_attention\w*)"),
    ("attention", r"aten::(_?safe_softmax|_softmax|softmax|_cudnn_attention\w*)"),
    ("attention", r"(torch_ipex|ipex)::.*(sdp|SDP|masked_multihead|attention|flash|softmax).*"),
    ("attention", r"(flash_attn|vllm_flash_attn|xformers|flex)\w*::.*"),
    ("weights", r"aten::(linear|mm|addmm|matmul|mv|addmv|_addmm_activation|_int_mm|_scaled_mm|_grouped_mm)"),
    # The operators around them can say that they are something else (`xpubench.measure.ledger.batched`).
    ("weights", r"aten::(bmm|baddbmm|bmm_out)"),
    ("weights", r"aten::(_weight_int\d+pack_mm\w*|_scaled_grouped_mm\w*|einsum|mkldnn_linear\w*|addbmm)"),
    ("weights", r"aten::(_fused_moe\w*|_dyn_quant_matmul\w*|conv1d|_?convolution|mkldnn_convolution)"),
    ("weights", r"(torchao|quantized|onednn|mkldnn|fbgemm)::.*(linear|mm|gemm|matmul|convert_weight).*"),
    ("weights", r"(torch_ipex|ipex)::.*(linear|mm_|_mm|gemm|matmul|mlp|moe|woq).*"),
    (
        "other_kernels",
        r"(torch_ipex|ipex)::.*(norm|rotary|embedding|silu|gelu|add|mul|beam|topk|cache|copy).*",
    ),
    ("other_kernels", r"(torchao|quantized|onednn|mkldnn)::.*(quantize|choose_qparams|reorder|to_dense).*"),
    (
        "other_kernels",
        r"aten::(mul|add|sub|div|rsub|pow|sqrt|rsqrt|neg|abs|exp|log|log2|sin|cos|tanh|sigmoid|silu|gelu|relu|"
        r"softplus|leaky_relu|hardtanh|clamp|clamp_min|clamp_max|maximum|minimum|reciprocal|square|floor|round|"
        r"ceil|erf|sign|lerp|addcmul|addcdiv|floor_divide|remainder|fmod|bitwise_\w+|logical_\w+|__\w+__|"
        r"eq|ne|lt|le|gt|ge|isnan|isinf|isfinite|isin|where|masked_fill|masked_scatter|masked_select|"
        r"dropout|native_dropout)_?(out)?",
    ),
    (
        "other_kernels",
        r"aten::(sum|mean|var|std|norm|linalg_vector_norm|prod|amax|amin|aminmax|max|min|argmax|argmin|any|all|"
        r"cumsum|_cumsum|cumprod|topk|sort|argsort|nonzero|count_nonzero|log_softmax|_log_softmax|logsumexp|"
        r"multinomial|bincount|histc|unique\w*|_unique\w*|searchsorted|bucketize|diff|var_mean|equal)_?(out)?",
    ),
    (
        "other_kernels",
        r"aten::(native_layer_norm|layer_norm|rms_norm|_fused_rms_norm|group_norm|native_group_norm|"
        r"batch_norm|native_batch_norm)",
    ),
    (
        "other_kernels",
        r"aten::(embedding|index_select|index|_index_put_impl_|index_put|index_copy|index_add|index_fill|"
        r"gather|scatter|scatter_add|scatter_reduce|take|take_along_dim|roll|flip|tril|triu|cat|_cat|stack|"
        r"hstack|vstack|repeat|repeat_interleave|copy|_copy_from|clone|contiguous|reshape|to|_to_copy|type_as|"
        r"fill|zero|ones|zeros|ones_like|zeros_like|full|full_like|new_ones|new_zeros|new_full|arange|"
        r"linspace|eye|tensor|one_hot|pad|constant_pad_nd|uniform|normal|random|bernoulli|polar|view_as_real|"
        r"view_as_complex|complex|outer|cross|dot|vdot|conj|ger|_foobar|scalar_tensor|lift|unfold|im2col)_?",
    ),
)
DEVICE_KERNELS: tuple[tuple[PartName, str], ...] = (
    ("collectives", r"(nccl|oneccl|ccl_|allreduce|all_reduce|all_gather|reduce_scatter|cross_device_reduce)"),
    ("attention", r"(flash|fmha|attention|attn|sdpa|softmax|micro_sdpa|xetla_fsdp|decode_kernel)"),
    (
        "weights",
        r"(gemm|gemv|cutlass|cublas|nvjet|splitk|xmma|_mm_|\bmm\b|matmul|int4_?pack|dequant\w*mm|dot_kernel)",
    ),
    ("weights", r"(^|_)(linear|addmm|mm|bmm)(_|$)"),
    (
        "other_kernels",
        r"(elementwise|vectorized|reduce_kernel|norm|embedding|index|gather|scatter|cat|copy|fill|memcpy|memset|"
        r"topk|sort|scan|arange|rotary|rope|silu|gelu|argmax|aminmax|distribution|where|\breorder\b)",
    ),
)
# A kernel that inductor fused is named after its operators.
FUSED = re.compile(r"(?:graph_\d+_)?(?:cpp|triton)_(?:\w{2,4}_)?fused_(?P<names>\w+)")
FUSED_OTHER = re.compile(
    r"(^|_)(add|mul|sub|div|pow|mean|rsqrt|silu|gelu|neg|cat|copy|embedding|cos|sin|slice|index|where|view|"
    r"clone|sum|to|expand|unsqueeze|arange|le|lt|ge|bitwise|scalar|argmax|aminmax|tanh|sigmoid|full|norm)(_|$)"
)
FUSED_PARTS: tuple[tuple[PartName, str], ...] = (
    ("attention", r"(attention|softmax)"),
    # The angles of the rotary embedding are a product of positions and frequencies.
    ("other_kernels", r"(^|_)bmm_.*(cos|sin)(_|$)"),
    ("attention", r"bmm"),
    ("weights", r"(^|_)(mm|addmm|linear|int4pack|int8pack)(_|$)"),
)
SYNCHRONIZING = re.compile(r"(synchroni[sz]e|Events?Wait|QueueFinish|EventQuery)", re.IGNORECASE)


@cache
def part_of_operator(name: str) -> PartName | None:
    """The part of an operator on the host: `host` for one that computes nothing, None for an unknown one."""
    if _matches(HOST, name):
        return "host"
    if fused := FUSED.match(name):
        return _fused(fused["names"])
    return next((part for part, pattern in OPERATORS if re.fullmatch(pattern, name)), None)


@cache
def is_composed(name: str) -> bool:
    """Whether this operator leaves its work to the operators that it calls, if it calls any."""
    return _matches(COMPOSED, name)


def is_fused(name: str) -> bool:
    """Whether the name is that of a kernel that inductor fused."""
    return FUSED.match(name) is not None


@cache
def part_of_kernel(name: str) -> PartName | None:
    """The part of a device's kernel by its own name; None where it is not known."""
    if fused := FUSED.match(name):
        return _fused(fused["names"])
    found = (part for part, pattern in DEVICE_KERNELS if re.search(pattern, name, re.IGNORECASE))
    return next(found, None)


@cache
def part_of_call(name: str) -> PartName:
    """The part of a call of the driver or its runtime while the device waits."""
    return "synchronization" if SYNCHRONIZING.search(name) else "launches"


def _fused(names: str) -> PartName | None:
    found = next((part for part, pattern in FUSED_PARTS if re.search(pattern, names)), None)
    return found or ("other_kernels" if FUSED_OTHER.search(names) else None)


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)
