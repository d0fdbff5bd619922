"""Which part of a token's time a node of a compiled model belongs to, by its type and name.

The types are those of OpenVINO's CPU plugin. Types of its GPU plugin count as the same where they differ only
in underscores and capitals, which has never been run.
"""

import re

from xpubench.explanation import PartName

# Products with constant weights, fused or not. The CPU plugin turns each MatMul with a constant into one of
# these.
WEIGHTS = {
    "fullyconnected",
    "fullyconnectedcompressed",
    "qkvprojection",
    "llmmlp",
    "gathermatmul",
    "convolution",
}
# Where attention is not fused, it consists of the products of activations with each other.
ATTENTION = re.compile(r"(scaleddotproductattention|pagedattention|sdpa|softmax|matmul$|gemm$)")
OTHER = re.compile(
    r"(add|subtract|multiply|divide|floormod|power|sqrt|abs|negative|exp|log|erf|sin|cos|tanh|sigmoid|swish|"
    r"swishcpu|gelu|relu|prelu|elu|hswish|mish|softplus|clamp|minimum|maximum|squareddifference|eltwise|activation|"
    r"isinf|isnan|equal|notequal|less|lessequal|greater|greaterequal|logical\w+|bitwise\w+|select|convert|"
    r"reorder|reshape|transpose|permute|squeeze|unsqueeze|split|variadicsplit|concat|concatenation|slice|"
    r"stridedslice|tile|broadcast|expand|pad|roll|range|shapeof|gather\w*|scatter\w*|embedding\w*|onehot|"
    r"nonzero|topk|cumsum|reduce\w*|argmax|mvn|rms|rope|layernorm\w*|groupnormalization|normalizel2|"
    r"fakequantize|dynamicquantize|quantize|subgraph|snippets?|parameter|result|constant|input|output|"
    r"readvalue|assign|memoryinput|memoryoutput|kvcache|randomuniform|trilu|eye|genericprimitive)"
)


def part_of_node(node_type: str, name: str) -> PartName:
    """The part of a node; `unknown_kernels` for a type that is not listed."""
    known = node_type.replace("_", "").lower()
    if known in WEIGHTS:
        return "weights"
    # The angles of the rotary embedding are a product of positions and frequencies, and not attention.
    if ATTENTION.match(known) and "rotary" not in name:
        return "attention"
    return "other_kernels" if OTHER.fullmatch(known) or "rotary" in name else "unknown_kernels"
