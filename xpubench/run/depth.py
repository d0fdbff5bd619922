"""The next token latency behind contexts of several lengths."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from xpubench.errors import RunFailure
from xpubench.explanation import DepthCurve
from xpubench.measure.depth import curve_of, depth_point
from xpubench.plan import DEPTH_TOKENS
from xpubench.prompts import random_prompt
from xpubench.record import Record
from xpubench.run.session import Session
from xpubench.spec import RunSpec, Workload

# At each of two visits the first generation from a cache of random values is not counted, and this many are;
# where a prompt has to be run for each, fewer are.
COUNTED, COUNTED_WITH_PROMPT = 3, 2
RANDOM, PROMPTS = "caches of random values", "prompts of random tokens"


def depth_curve(session: Session[RunSpec], record: Record, depths: list[int]) -> DepthCurve:
    """The next token latency of the run's workload at these depths. A depth is the number of positions before
    the prompt's last token, which a stack fills with random keys and values where it can, and for which a
    prompt of so many tokens is run elsewhere. RunFailure `oom` where the KV cache would be more than the free
    memory, `numerics` for logits that are not finite."""
    spec = record.spec
    assert isinstance(spec, RunSpec)
    _check_memory(session, spec.workload, max(depths))
    rows: dict[int, list[list[int]]] = defaultdict(list)
    methods = set()
    prepared = None
    for place, depth in enumerate(_visits(depths, once=session.subject.options.compiles)):
        workload = msgspec.structs.replace(
            spec.workload, input_tokens=depth + 1, new_tokens=DEPTH_TOKENS, prompt=None
        )
        if depth != prepared:
            session.generator.prepare(workload)
            prepared = depth
        for method, row in _visit(session, workload, spec.protocol.seed, place):
            methods.add(method)
            rows[depth].append(row)
    return curve_of(
        [depth_point(depth, rows[depth]) for depth in depths],
        blocks=session.facts.architecture.num_layers if session.facts.architecture else None,
        bytes_ns=_bytes_ns(session, record, spec.workload),
        copied="Dynamic" in (record.checks.cache or ""),
        method=" and ".join(sorted(methods)),
    )


def _visits(depths: Sequence[int], *, once: bool) -> list[int]:
    """The depths in the order of their two visits: rising and then falling, so that a drift of the machine
    weighs on all of them alike. Where each is to be prepared `once`, because its steps are compiled for it,
    both visits follow each other; every other depth is visited rising and the rest falling, so that a drift
    weighs less on their slope."""
    if not once:
        return [*depths, *reversed(depths)]
    return [depth for depth in (*depths[::2], *reversed(depths[1::2])) for _ in range(2)]


def _visit(
    session: Session[RunSpec], workload: Workload, seed: int, place: int
) -> Iterator[tuple[str, list[int]]]:
    """How the context was made and the next token latencies, of each counted generation."""
    generator, vocabulary = session.generator, session.generator.vocabulary
    prompt_ids = random_prompt(
        vocabulary.size,
        vocabulary.special_ids,
        batch_size=workload.batch_size,
        length=workload.input_tokens or 1,
        seed=seed,
        index=place,
    )
    filled = generator.continue_random_cache(prompt_ids, workload) is not None
    for _ in range(COUNTED if filled else COUNTED_WITH_PROMPT):
        found = generator.continue_random_cache(prompt_ids, workload) if filled else None
        if found is None:
            found = generator.generate(prompt_ids, workload, "every_token")
        if found.logits is not None and not found.logits.finite:
            raise RunFailure("numerics", f"logits that are not finite at depth {prompt_ids.shape[1] - 1}")
        yield RANDOM if filled else PROMPTS, found.times.iteration().next_token_ns or []


def _check_memory(session: Session[RunSpec], workload: Workload, depth: int) -> None:
    architecture, subject = session.facts.architecture, session.subject
    free = session.facts.device.facts().free_memory_bytes
    if architecture is None or free is None:
        return
    needed = architecture.part(subject.tp_size).kv_cache_bytes(
        sequences=workload.batch_size * workload.num_beams,
        positions=depth + 1 + DEPTH_TOKENS,
        value_bytes=session.generator.kv_value_bytes(architecture.head_dim),
    )
    if needed > free:
        what = f"a KV cache of {needed / 1e9:.2f} GB at depth {depth}"
        raise RunFailure("oom", f"{what} is more than the {free / 1e9:.2f} GB that are free; lower --depths")


def _bytes_ns(session: Session[RunSpec], record: Record, workload: Workload) -> float | None:
    """What the keys and values of a position in a block, of all sequences, take at the bandwidth."""
    architecture = session.facts.architecture
    if architecture is None or record.bandwidth is None:
        return None
    part = architecture.part(session.subject.tp_size)
    values = workload.batch_size * workload.num_beams * 2 * part.num_kv_heads * part.head_dim
    # GB/s are bytes a nanosecond.
    return values * session.generator.kv_value_bytes(part.head_dim) / record.bandwidth.highest_gb_per_s
