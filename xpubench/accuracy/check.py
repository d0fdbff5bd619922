"""The answers of a run and of its reference, a record or the CPU in float32, to the check prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from xpubench.accuracy import degenerate, divergence
from xpubench.accuracy.limits import check_limits, judged, limits_for, precision_of
from xpubench.catalog.architecture import Architecture
from xpubench.errors import RunFailure, UserError
from xpubench.measure.host import free_host_bytes
from xpubench.plan import lack_of_memory
from xpubench.record import Divergence, Record, ReferenceLimits, WeightsFingerprint, read_record
from xpubench.runtimes import registry
from xpubench.runtimes.base import Generator, TokenIds
from xpubench.spec import RunSpec, Subject

CPU_FLOAT32 = "cpu-float32"
# How many of the tokens before the timing the answers after it have, where no cache of another size has to be
# compiled for that. What has changed since then shows in any of them.
TOKENS_AFTER = 8


def check_file(record_id: str) -> str:
    """The name of the file beside a record that holds its answers to the check prompts."""
    return f"{record_id}.check.npz"


def recorded_reference(reference: str | None, subject: Subject) -> divergence.Trace | None:
    """The answers in the check file beside the record at the path `reference`; None where no record is
    named. UserError where the record cannot be the reference."""
    if reference is None:
        return None
    if subject.weights == "dummy":
        raise UserError("--reference means nothing with --dummy-weights, whose tokens are noise")
    if reference == CPU_FLOAT32:
        return None
    path = Path(reference)
    if not path.is_file():
        raise UserError(f"no such reference {reference!r}; give a record's path or {CPU_FLOAT32}")
    record = read_record(path)
    if record.status != "ok":
        raise UserError(f"the reference {reference} is a failed run ({record.status})")
    theirs = record.spec.subject
    if not same_model(theirs, subject):
        raise UserError(f"the reference {reference} ran {theirs.model}, not {subject.model}")
    if reason := other_adapter(record, subject):
        raise UserError(f"the reference {reference} cannot be compared: {reason}")
    return divergence.load(path.with_name(check_file(path.stem)))


def reference_limits(
    reference: str | None, ours: str, *, max_kl: float | None, min_agreement: float | None
) -> ReferenceLimits:
    """The limits of the divergence from a reference for a run of that precision."""
    theirs = "float32"
    if reference not in (None, CPU_FLOAT32):
        theirs = precision_of(read_record(Path(reference)).spec.subject)
    return limits_for(ours, theirs, max_kl=max_kl, min_agreement=min_agreement)


def check_weights(reference: str | None, fingerprint: WeightsFingerprint | None) -> None:
    """UserError where the recorded reference ran another checkpoint of the same name, or another adapter."""
    if reference in (None, CPU_FLOAT32) or fingerprint is None:
        return
    theirs = read_record(Path(reference)).fingerprint
    if theirs is None:
        return
    if theirs.weights != fingerprint.weights:
        raise UserError(f"the reference {reference} ran other weights of that name; make the reference again")
    adapters = (theirs.adapter, fingerprint.adapter)
    if None not in adapters and adapters[0] != adapters[1]:
        raise UserError(f"the reference {reference} ran another LoRA adapter; make the reference again")


def same_model(one: Subject, other: Subject) -> bool:
    """Whether two subjects run the same model, judged by its name: a local directory, a name on the hub, or
    the source that an IR was exported from."""
    names = {Path(subject.model).name.lower() for subject in (one, other)}
    # Only IRs need their stack to tell where they are from.
    return len(names) == 1 or bool(_names(one) & _names(other))


def other_adapter(reference: Record, subject: Subject) -> str | None:
    """Why a reference and a subject are not one model, where only one of them has a LoRA adapter; None where
    both have one or neither has."""
    theirs, ours = reference.adapter, adapter_of(subject)
    if theirs is not None and ours is None:
        return f"it ran with the LoRA adapter {theirs}, and this run has none"
    if theirs is None and ours is not None:
        return f"it ran without a LoRA adapter, and this run has {ours}"
    return None


def adapter_of(subject: Subject) -> str | None:
    """The LoRA adapter on a subject's model: the one that it asks for, or that an IR was exported with."""
    origin = registry.loader(subject.runtime).origin(subject)
    return subject.lora if origin is None else origin.lora


def _names(subject: Subject) -> set[str]:
    """The name of a subject's model and, where it was converted and says from what, the name of the
    checkpoint."""
    origin = registry.loader(subject.runtime).origin(subject)
    return {Path(name).name.lower() for name in (subject.model, origin.model if origin else subject.model)}


def cpu_reference(spec: RunSpec, architecture: Architecture | None) -> divergence.Trace:
    """The check prompts' answers of the spec's model on the CPU in float32, eager, with a dynamic cache."""
    origin = registry.loader(spec.subject.runtime).origin(spec.subject)
    if origin is None:
        why = "does not say which checkpoint it was made of"
        raise UserError(f"{spec.subject.model} {why}; give a record of that one as --reference")
    subject = Subject(
        **msgspec.structs.asdict(origin),
        device="cpu",
        dtype="float32",
        trust_remote_code=spec.subject.trust_remote_code,
        allow_pickle=spec.subject.allow_pickle,
    )
    if architecture is not None and subject.model != spec.subject.model:
        # What a quantized checkpoint was made from is not quantized itself.
        architecture = msgspec.structs.replace(architecture, weight_bits=None)
    if lack := lack_of_memory(architecture, subject, spec.workload, free_host_bytes()):
        raise RunFailure(lack.failure_class, f"the reference on the CPU: {lack.message}")
    try:
        generator = registry.loader(subject.runtime).load(subject)
    except RunFailure as failure:
        raise RunFailure(failure.failure_class, f"the reference on the CPU: {failure.message}") from failure
    try:
        prompt_ids = divergence.check_prompts(generator.vocabulary, spec.workload.prompt, spec.protocol.seed)
        workload = msgspec.structs.replace(spec.workload, cache="dynamic")
        return divergence.trace(generator, prompt_ids, workload)
    finally:
        generator.close()


class _Answers(NamedTuple):
    """The tokens of the check prompts, int64 (P, N), with their logits and their divergence from a
    reference; None for what the stack hides or nobody asked for. `unrepeated` are the prompts to which the
    stack gave other tokens once and not again."""

    tokens: TokenIds | None = None
    trace: divergence.Trace | None = None
    found: Divergence | None = None
    unrepeated: Sequence[int] = ()


class Checks:
    """The answers of `generator`, a loaded model, to the check prompts, generated once for each kind of
    cache, and how far they are from the `expected` ones of the reference of that name."""

    def __init__(
        self,
        generator: Generator,
        reference: str | None,
        expected: divergence.Trace | None,
        limits: ReferenceLimits,
    ) -> None:
        self.generator = generator
        self._limits = limits
        self._reference = reference or ""
        self._expected = expected
        self._answers: dict[str, _Answers] = {}

    def answer(self, spec: RunSpec) -> tuple[divergence.Trace | None, Divergence | None]:
        """The answers with the spec's kind of cache, None where the stack hides its logits, and the
        divergence. Both are None for dummy weights, whose tokens are noise."""
        answers = self._answered(spec)
        return answers.trace, answers.found

    def doubts(self, spec: RunSpec) -> list[str]:
        """Warnings about the answers. RunFailure `numerics` where they are no result of this model."""
        answers, expected = self._answered(spec), self._expected
        doubts = [] if answers.found is None else check_limits(answers.found)
        if answers.unrepeated and answers.tokens is not None:
            doubts.append(
                f"the stack does not repeat itself: on {len(answers.unrepeated)} of {len(answers.tokens)} "
                "check prompts one generation chose another token than the reference, and in the next one, "
                "after the same tokens, the reference's was more probable; equal runs can differ in their "
                "tokens"
            )
        if answers.tokens is None or self.generator.vocabulary.tokenizer is None:
            return doubts
        return doubts + degenerate.loop_doubts(answers.tokens, None if expected is None else expected.tokens)

    def before_and_after(self, spec: RunSpec) -> list[divergence.Trace]:
        """Two arrays of answers: those so far, and the first tokens of those that the model gives now when
        each row of the batch stands in another place beside other rows, put back into the order of the
        former. Empty where the model gives none."""
        before, _ = self.answer(spec)
        if before is None:
            return []
        new_tokens = TOKENS_AFTER if spec.workload.cache == "dynamic" else before.tokens.shape[1]
        moved_ids = np.roll(before.prompt_ids, 1, axis=0)
        moved = divergence.trace(self.generator, moved_ids, spec.workload, new_tokens)
        rows = {name: np.roll(array, -1, axis=0) for name, array in msgspec.structs.asdict(moved).items()}
        return [before, divergence.Trace(**rows)]

    def _answered(self, spec: RunSpec) -> _Answers:
        if spec.subject.weights == "dummy":
            return _Answers()
        if spec.workload.cache not in self._answers:
            self._answers[spec.workload.cache] = self._ask(spec)
        return self._answers[spec.workload.cache]

    def _ask(self, spec: RunSpec) -> _Answers:
        generator, expected, name, workload = self.generator, self._expected, self._reference, spec.workload
        if expected is not None:
            ids = (expected.prompt_ids, expected.tokens, expected.top_ids)
            if max(int(array.max()) for array in ids) >= generator.vocabulary.size:
                raise UserError(f"the reference {name} has another vocabulary; compare runs of one model")
        if generator.scorer is None:
            if expected is None:
                return _Answers()
            tokens, found = divergence.compare_tokens(name, expected, generator, workload)
            return _Answers(tokens=tokens, found=judged(found, self._limits))
        if expected is None:
            prompt_ids = divergence.check_prompts(generator.vocabulary, workload.prompt, spec.protocol.seed)
            own = divergence.trace(generator, prompt_ids, workload)
            return _Answers(tokens=own.tokens, trace=own)
        own = divergence.trace(generator, expected.prompt_ids, workload)
        logits = divergence.forced_logits(generator, expected.prompt_ids, expected.tokens, workload)
        found = judged(divergence.compare(name, expected, own, logits), self._limits)
        unrepeated = divergence.unrepeated(expected, own, logits)
        return _Answers(tokens=own.tokens, trace=own, found=found, unrepeated=unrepeated)
