"""The generations of one load of a model: one that is looked at, the warm-up, and the measured pairs."""

from contextlib import nullcontext
from time import monotonic, perf_counter_ns
from typing import NamedTuple

import msgspec
import numpy as np

from xpubench.accuracy.timed import TimedTokens
from xpubench.measure.cores import between
from xpubench.measure.host import peak_host_bytes
from xpubench.measure.iterations import iteration_pairs, warm_up
from xpubench.measure.perturbation import known, ratios
from xpubench.measure.until_ci import pair_value, tight_after
from xpubench.prompts import random_prompt
from xpubench.record import Iteration, Samples, SyncPolicy
from xpubench.run.session import Session
from xpubench.runtimes.base import Generator, TokenIds, Verification
from xpubench.spec import RunSpec, Workload

# Long runs repeat the untimed generation after as many seconds, or later, so that it takes at most this share
# of the time.
VERIFY_EVERY_S = 180.0
VERIFY_SHARE = 0.02


class LoadGenerations(NamedTuple):
    """What the untimed generation showed, and the peaks of memory in bytes of warm-up and measured
    generations."""

    verification: Verification
    peak_device_bytes: int | None
    peak_host_bytes: int


def counts_per_load(count: int, loads: int) -> list[int]:
    """`count` divided over the loads, the larger shares first."""
    return [count // loads + (number < count % loads) for number in range(loads)]


def measure_load(
    session: Session[RunSpec], spec: RunSpec, load: int, count: int, samples: Samples, watched: TimedTokens
) -> LoadGenerations:
    """Warms the loaded model up, generates `count` measured pairs, and adds them to the samples of load
    number `load`."""
    workload, protocol = spec.workload, spec.protocol
    generator, progress, device = session.generator, session.progress, session.facts.device
    generator.prepare(workload)
    # The generation that is looked at is the first one, so that it warms up as well. Where no warm-up is
    # asked for, it serves the checks alone.
    called_ns = perf_counter_ns()
    with nullcontext() if protocol.num_warmup else watched.checking():
        verification = _verify(generator, spec, watched)
    verification_ns, verified_s = perf_counter_ns() - called_ns, monotonic()
    verify_every_s = max(VERIFY_EVERY_S, verification_ns / 1e9 / VERIFY_SHARE)
    samples.warmup.append(
        Iteration(
            sync_policy="end_to_end",
            first_token_ns=None,
            next_token_ns=None,
            end_to_end_ns=verification_ns,
            load=load,
        )
    )

    def once(sync_policy: SyncPolicy, index: int) -> Iteration:
        nonlocal verified_s
        if monotonic() - verified_s > verify_every_s:
            with watched.checking():
                _verify(generator, spec, watched)
            verified_s = monotonic()
        iteration = _generate_once(session, spec, sync_policy, index, watched)
        available = device.available_host_bytes()
        return msgspec.structs.replace(iteration, available_host_bytes=available, load=load)

    device.reset_peaks()
    # Its prompts are none of those that are measured.
    first_index = protocol.num_iter - protocol.num_warmup
    for iteration in warm_up(once, protocol.num_warmup, first_index, verification_ns):
        samples.warmup.append(iteration)
        progress.step(f"warm-up: {iteration.end_to_end_ns / 1e6:.1f} ms")
    values: list[float] = []

    def enough() -> bool:
        return protocol.until_ci is not None and tight_after(values, protocol.until_ci) is not None

    def slowdown_known() -> bool:
        return not protocol.every_pair and known(ratios(samples.iterations))

    for iteration in iteration_pairs(once, count, enough, slowdown_known):
        samples.iterations.append(iteration)
        if (value := pair_value(iteration)) is not None:
            values.append(value)
        progress.step(f"{iteration.sync_policy}: {iteration.end_to_end_ns / 1e6:.1f} ms")
    return LoadGenerations(verification, device.peak_bytes(), peak_host_bytes())


def _verify(generator: Generator, spec: RunSpec, watched: TimedTokens) -> Verification:
    """An untimed generation from the first and the last pair's prompt. Each row of the batch stands in
    another place, so that what goes wrong at one place shows, unless the stack hides the logits by which its
    rounding could be told from that."""
    workload, shift = spec.workload, 0 if generator.scorer is None else 1
    prompt_ids = prompt_ids_of(generator, workload, spec.protocol.seed, 0)
    verification = generator.verify(np.roll(prompt_ids, shift, axis=0), workload)
    tokens = np.roll(verification.tokens, -shift, axis=0)
    watched.add(workload.prompt or 0, prompt_ids, workload.num_beams, tokens)
    watched.look_at(verification.logits)
    return msgspec.structs.replace(verification, tokens=tokens)


def _generate_once(
    session: Session[RunSpec], spec: RunSpec, sync_policy: SyncPolicy, index: int, watched: TimedTokens
) -> Iteration:
    """One timed generation; with a text prompt also the times to tokenize and detokenize."""
    workload, generator, device = spec.workload, session.generator, session.facts.device
    called_ns = perf_counter_ns()
    prompt_ids = prompt_ids_of(generator, workload, spec.protocol.seed, index)
    tokenize_ns = perf_counter_ns() - called_ns
    before = device.cpu_clock()
    generation = generator.generate(prompt_ids, workload, sync_policy)
    after = device.cpu_clock()
    watched.add(workload.prompt or index, prompt_ids, workload.num_beams, generation.tokens)
    watched.look_at(generation.logits)
    if workload.prompt is None:
        iteration = generation.times.iteration()
    else:
        called_ns = perf_counter_ns()
        generator.vocabulary.decode(generation.tokens[0].tolist())
        iteration = generation.times.iteration(tokenize_ns, perf_counter_ns() - called_ns)
    cpu = None if before is None or after is None else between(before, after)
    return msgspec.structs.replace(iteration, drafting=generation.drafting, cpu=cpu)


def prompt_ids_of(generator: Generator, workload: Workload, seed: int, index: int) -> TokenIds:
    """The ids of the workload's prompts, int64 of shape (batch, length): the text's, or random ones that
    belong to `index`."""
    vocabulary = generator.vocabulary
    if workload.input_tokens is None:
        return np.array([vocabulary.encode(workload.prompt or "")] * workload.batch_size, dtype=np.int64)
    return random_prompt(
        vocabulary.size,
        vocabulary.special_ids,
        batch_size=workload.batch_size,
        length=workload.input_tokens,
        seed=seed,
        index=index,
    )
