"""The operators that a decoder consists of, each at one shape, with random inputs and the same computation in
float64 on the CPU."""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from xpubench.catalog.architecture import Architecture
from xpubench.measure.random_bits import random_values
from xpubench.weights.int4.grids import Int4Weight
from xpubench.weights.int4.kernels import int4_parameter, kernel_takes

PROMPT_ROWS = 1024
COMPARED_ROWS = 64
POSITIONS = 1024  # the keys and values that a row attends to while decoding
# Random matrices with more values than this repeat a block of rows. The number of rows in the block is odd,
# so that a read from an address that is wrong by a power of two finds other values.
BLOCK_VALUES = 2**24
TOP_K = 50
EPSILON = 1e-6
ROTARY_BASE = 10_000.0


class OperatorSizes(NamedTuple):
    """The sizes of a decoder that decide the shapes of its operators."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int


STANDARD = OperatorSizes(512, 8, 4, 64, 1408, 16_384)


def sizes_of(architecture: Architecture | None) -> OperatorSizes:
    """The sizes of an architecture, or standard ones where it is not known."""
    if architecture is None:
        return STANDARD
    one = architecture
    return OperatorSizes(
        one.hidden_size, one.num_heads, one.num_kv_heads, one.head_dim, one.intermediate_size, one.vocab_size
    )


class Case(NamedTuple):
    """An operator with its inputs. `work` runs it on the device, `compared` takes from its result what is
    compared, and `reference` is the same in float64 on the CPU, both of shape (..., width). `moved_bytes`
    counts inputs and output once."""

    work: Callable[[], torch.Tensor]
    compared: Callable[[torch.Tensor], torch.Tensor]
    reference: torch.Tensor
    moved_bytes: int
    flop: int


# An operator's name, its shape in words, and the function that makes the case.
NamedCase = tuple[str, str, Callable[[], Case]]


class OperatorPlace:
    """A device, the dtype of the operators on it, and their inputs."""

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self.generator = torch.Generator().manual_seed(0)
        self._matrices: dict[tuple[int, int], torch.Tensor] = {}

    def draw(self, *shape: int) -> torch.Tensor:
        """Values of random bits on the CPU."""
        return random_values(shape, self.dtype, self.generator)

    def matrix(self, rows: int, width: int) -> torch.Tensor:
        """A matrix of random bits of that width on the CPU, drawn once, with all the rows or, where these are
        too many values, with fewer rows to be repeated."""
        if rows * width > BLOCK_VALUES:
            rows = BLOCK_VALUES // width | 1
        if (rows, width) not in self._matrices:
            self._matrices[rows, width] = self.draw(rows, width)
        return self._matrices[rows, width]

    def rows(self, rows: int) -> torch.Tensor:
        """The rows that are compared: all, or of many the first, the last and others at random."""
        if rows <= COMPARED_ROWS:
            return torch.arange(rows)
        between = torch.randperm(rows - 2, generator=self.generator)[: COMPARED_ROWS - 2] + 1
        return torch.cat((torch.tensor([0]), between.sort().values, torch.tensor([rows - 1])))


def cases(
    place: OperatorPlace, rows: int, sizes: OperatorSizes, group_size: int | None
) -> Iterator[NamedCase]:
    """The operators at that many rows (tokens); the INT4 product where a group size is given. The output head
    sees one row a sequence and is left out at the rows of a prompt, where softmax and top-k have the width of
    an attention's scores."""
    hidden, attended, decoding = sizes.hidden, sizes.heads * sizes.head_dim, rows < PROMPT_ROWS
    shared = sizes.kv_heads * sizes.head_dim
    layers = [
        *((attended, hidden), (hidden, shared), (hidden, attended)),
        *((hidden, sizes.intermediate), (sizes.intermediate, hidden)),
    ]
    head = [(hidden, sizes.vocabulary)] if decoding else []
    heads = f"{sizes.heads} heads of {sizes.head_dim}"
    wide = sizes.vocabulary if decoding else POSITIONS
    for width, outputs in dict.fromkeys(layers + head):
        yield "linear", f"{width} to {outputs}", partial(_linear, place, rows, width, outputs)
    for width, outputs in dict.fromkeys(layers):
        if group_size and width % group_size == 0 and kernel_takes((outputs, width), place.device):
            make = partial(_int4_product, place, rows, width, outputs, group_size)
            yield "INT4 product", f"{width} to {outputs}", make
    yield "attention", heads, partial(_attention, place, rows, sizes, None)
    for name, backend in SDPBackend.__members__.items():
        if name != "ERROR":
            title = name.lower().removesuffix("_attention")
            yield f"attention, {title}", heads, partial(_attention, place, rows, sizes, backend)
    yield "RMS norm", str(hidden), partial(_rms_norm, place, rows, hidden)
    yield "layer norm", str(hidden), partial(_layer_norm, place, rows, hidden)
    yield "rotary embedding", heads, partial(_rotary, place, rows, sizes)
    yield "softmax", str(wide), partial(_softmax, place, rows, wide)
    yield "top-k", str(wide), partial(_top_k, place, rows, wide)
    yield "embedding", f"{sizes.vocabulary} of {hidden}", partial(_embedding, place, rows, sizes)


def _linear(place: OperatorPlace, rows: int, width: int, outputs: int) -> Case:
    block = _scaled(place.matrix(outputs, width), width)
    weight, inputs = _repeated(block.to(place.device), outputs), place.draw(rows, width)
    on_device, picked = inputs.to(place.device), place.rows(rows)
    reference = inputs[picked].double() @ block.double().T
    return Case(
        work=lambda: functional.linear(on_device, weight),
        compared=lambda found: found[picked.to(found.device)],
        reference=_repeated(reference.T, outputs).T,
        moved_bytes=weight.nbytes + inputs.nbytes + rows * outputs * inputs.itemsize,
        flop=2 * rows * width * outputs,
    )


def _int4_product(place: OperatorPlace, rows: int, width: int, outputs: int, group_size: int) -> Case:
    """The product with an INT4 weight as the harness stores it for the device. Its codes are random bits."""
    limit = 2**31
    codes = torch.randint(-limit, limit, (outputs, width // 8), dtype=torch.int32, generator=place.generator)
    # Scales are positive, and codes reach up to 8 in magnitude.
    scales = _scaled(place.draw(outputs, width // group_size).abs(), 64 * width)
    weight = Int4Weight(packed=codes, scales=scales, zeros=None)
    parameter, inputs = int4_parameter(weight, place.device, place.dtype), place.draw(rows, width)
    on_device, picked = inputs.to(place.device), place.rows(rows)
    return Case(
        work=lambda: functional.linear(on_device, parameter),
        compared=lambda found: found[picked.to(found.device)],
        reference=inputs[picked].double() @ weight.values().double().T,
        moved_bytes=codes.nbytes + scales.nbytes + inputs.nbytes + rows * outputs * inputs.itemsize,
        flop=2 * rows * width * outputs,
    )


def _attention(place: OperatorPlace, rows: int, sizes: OperatorSizes, backend: SDPBackend | None) -> Case:
    """One new token of each of `rows` sequences, or a prompt with a causal mask. Key-value heads are repeated
    for the heads that share them, as transformers does."""
    prompt = rows == PROMPT_ROWS
    batch, queries = (1, rows) if prompt else (rows, 1)
    query = place.draw(batch, sizes.heads, queries, sizes.head_dim)
    keys, values = (place.draw(batch, sizes.kv_heads, POSITIONS, sizes.head_dim) for _ in range(2))
    shared = sizes.heads // sizes.kv_heads
    keys, values = (one.repeat_interleave(shared, dim=1) for one in (keys, values))
    on_query, on_keys, on_values = (one.to(place.device) for one in (query, keys, values))

    def work() -> torch.Tensor:
        with nullcontext() if backend is None else sdpa_kernel(backend):
            return functional.scaled_dot_product_attention(on_query, on_keys, on_values, is_causal=prompt)

    work()  # A backend that the device lacks raises here, before the reference takes time.
    picked = place.rows(queries)
    scores = query[:, :, picked].double() @ keys.double().mT / math.sqrt(sizes.head_dim)
    if prompt:
        scores.masked_fill_(torch.arange(POSITIONS) > picked[:, None], -torch.inf)
    pairs = rows * (POSITIONS + 1) // 2 if prompt else rows * POSITIONS
    return Case(
        work=work,
        compared=lambda found: found[:, :, picked.to(found.device)],
        reference=scores.softmax(-1) @ values.double(),
        moved_bytes=2 * query.nbytes + keys.nbytes + values.nbytes,
        flop=4 * pairs * sizes.heads * sizes.head_dim,
    )


def _rms_norm(place: OperatorPlace, rows: int, width: int) -> Case:
    """As the layers of transformers compute it: in float32, and the product with the weight in the dtype."""
    inputs, weight = place.draw(rows, width), place.draw(width)
    on_device, weight_on_device = inputs.to(place.device), weight.to(place.device)
    exact = inputs.double()

    def work() -> torch.Tensor:
        upcast = on_device.float()
        factor = torch.rsqrt(upcast.pow(2).mean(-1, keepdim=True) + EPSILON)
        return weight_on_device * (upcast * factor).to(on_device.dtype)

    factor = torch.rsqrt(exact.square().mean(-1, keepdim=True) + EPSILON)
    return _whole(work, exact * factor * weight.double(), inputs, flop_each=4)


def _layer_norm(place: OperatorPlace, rows: int, width: int) -> Case:
    inputs, weight, bias = place.draw(rows, width), place.draw(width), place.draw(width)
    on_device, *affine = (one.to(place.device) for one in (inputs, weight, bias))

    def norm(values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(values, (width,), weight, bias, EPSILON)

    reference = norm(inputs.double(), weight.double(), bias.double())
    return _whole(lambda: norm(on_device, *affine), reference, inputs, flop_each=8)


def _rotary(place: OperatorPlace, rows: int, sizes: OperatorSizes) -> Case:
    """Queries turned by the angles of the last of 1,024 positions, whose cosines and sines have the dtype, as
    transformers does it (https://arxiv.org/abs/2104.09864)."""
    inputs = place.draw(1, sizes.heads, rows, sizes.head_dim)
    exponents = torch.arange(0, sizes.head_dim, 2, dtype=torch.float64) / sizes.head_dim
    positions = torch.arange(POSITIONS - rows, POSITIONS, dtype=torch.float64)
    angles = positions[:, None] * ROTARY_BASE**-exponents
    turns = [one.repeat(1, 2).to(place.dtype) for one in (angles.cos(), angles.sin())]
    on_device, *turns_on_device = (one.to(place.device) for one in (inputs, *turns))

    def turned(heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        first, second = heads.chunk(2, dim=-1)
        return heads * cosines + torch.cat((-second, first), dim=-1) * sines

    reference = turned(inputs.double(), *(one.double() for one in turns))
    return _whole(lambda: turned(on_device, *turns_on_device), reference, inputs, flop_each=3)


def _softmax(place: OperatorPlace, rows: int, width: int) -> Case:
    inputs = place.draw(rows, width)
    on_device = inputs.to(place.device)
    reference = inputs.double().softmax(-1)
    return _whole(lambda: on_device.softmax(-1), reference, inputs, flop_each=4)


def _top_k(place: OperatorPlace, rows: int, width: int) -> Case:
    """The comparison covers the values, and the values that the indexes point at; the indexes must differ
    from each other."""
    inputs, count = place.draw(rows, width), min(TOP_K, width)
    on_device = inputs.to(place.device)
    found_indexes: list[torch.Tensor] = []

    def work() -> torch.Tensor:
        values, indexes = torch.topk(on_device, count)
        found_indexes[:] = [indexes]
        return values

    def compared(values: torch.Tensor) -> torch.Tensor:
        indexes = found_indexes[0].cpu()
        twice = (indexes.sort(-1).values.diff(dim=-1) == 0).any(-1, keepdim=True)
        pointed_at = inputs.double().gather(-1, indexes.clamp(0, width - 1))
        return torch.cat((values.cpu().double(), pointed_at.masked_fill(twice, torch.nan)), dim=-1)

    reference = torch.topk(inputs.double(), count).values
    one = _whole(work, reference.repeat(1, 2), inputs, flop_each=0)
    return one._replace(compared=compared)


def _embedding(place: OperatorPlace, rows: int, sizes: OperatorSizes) -> Case:
    block = place.matrix(sizes.vocabulary, sizes.hidden)
    table = _repeated(block.to(place.device), sizes.vocabulary)
    tokens = torch.randint(sizes.vocabulary, (rows,), generator=place.generator)
    tokens[-1] = sizes.vocabulary - 1
    on_device = tokens.to(place.device)
    reference = block[tokens % len(block)].double()
    moved = 2 * rows * sizes.hidden * block.itemsize
    return Case(lambda: functional.embedding(on_device, table), lambda found: found, reference, moved, flop=0)


def _whole(
    work: Callable[[], torch.Tensor], reference: torch.Tensor, inputs: torch.Tensor, flop_each: int
) -> Case:
    """A case whose whole result is compared, and which reads and writes as many values as `inputs` has."""
    moved_bytes, flop = 2 * inputs.nbytes, flop_each * inputs.numel()
    return Case(work, lambda found: found, reference, moved_bytes, flop)


def _repeated(block: torch.Tensor, rows: int) -> torch.Tensor:
    """The block's rows over and over, up to that many."""
    return block if len(block) == rows else block.repeat(-(-rows // len(block)), 1)[:rows]


def _scaled(values: torch.Tensor, width: int) -> torch.Tensor:
    """The values times a power of two, which rounds nothing, so that sums of so many products are near 1."""
    return values * 2.0 ** -round(math.log2(width) / 2)
