"""Which part of a token's time batched matrix products are, by the operators around them.

Attention that is not fused is a product, a softmax and a product, with no product with weights between them.
The rotary embedding multiplies positions with frequencies before it takes the cosines. All others, such as
those of a mixture's experts, are products with weights.
"""

from collections.abc import Iterable

from xpubench.explanation import PartName
from xpubench.measure.ledger.operators import part_of_operator

BATCHED = ("aten::bmm", "aten::baddbmm", "aten::bmm_out")
COSINE = "aten::cos"


def parts_of_batched(operators: Iterable[tuple[int, str]]) -> dict[int, PartName]:
    """The parts of batched products that are not products with weights. The operators are those that compute,
    in their order, each with its key and its name."""
    found: dict[int, PartName] = {}
    product: int | None = None
    weighed = False
    for key, name in operators:
        part = part_of_operator(name)
        if name in BATCHED:
            if product is not None and weighed:
                found[product] = found[key] = "attention"
            product, weighed = key, False
        elif part == "weights":
            product = None
        elif part == "attention" and "softmax" in name:
            weighed = True
        elif name == COSINE and product is not None and not weighed:
            found[product] = "other_kernels"
    return found
