"""A run's answers to the check prompts, and the reference's: a record's, or the CPU's in float32."""

from pathlib import Path

import msgspec

from xpubench.accuracy import divergence
from xpubench.catalog.architecture import Architecture
from xpubench.errors import RunFailure, UserError
from xpubench.measure.host import free_host_bytes
from xpubench.plan import lack_of_memory
from xpubench.record import Divergence, read_record
from xpubench.runtimes import registry
from xpubench.runtimes.base import Generator
from xpubench.spec import RunSpec, Subject

CPU_FLOAT32 = "cpu-float32"


def check_file(record_id: str) -> str:
    """The name of the file beside a record that holds its answers to the check prompts."""
    return f"{record_id}.check.npz"


def recorded_reference(reference: str | None, subject: Subject) -> divergence.Trace | None:
    """The answers beside the record at the path `reference`, None where none is named.

    UserError where it cannot serve.
    """
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
        raise UserError(f"the reference {reference} is of a failed run ({record.status})")
    theirs = record.spec.subject
    # One model can have a directory here and a name on the hub, and IRs made of it.
    if not _names(theirs) & _names(subject):
        raise UserError(f"the reference {reference} is of {theirs.model}, this run of {subject.model}")
    return divergence.load(path.with_name(check_file(path.stem)))


def _names(subject: Subject) -> set[str]:
    """What a subject's model is called: by itself and, of a converted one that tells, by its checkpoint."""
    origin = registry.loader(subject.runtime).origin(subject)
    names = [subject.model, subject.model if origin is None else origin.model]
    return {Path(name).name.lower() for name in names}


def cpu_reference(spec: RunSpec, architecture: Architecture | None) -> divergence.Trace:
    """The check prompts' answers of the spec's model on the CPU in float32, eager, with a dynamic cache."""
    origin = registry.loader(spec.subject.runtime).origin(spec.subject)
    if origin is None:
        raise UserError(
            f"{spec.subject.model} does not say which checkpoint it was made of; give a record of that one "
            "as --reference"
        )
    subject = Subject(
        model=origin.model,
        device="cpu",
        dtype="float32",
        revision=origin.revision,
        lora=origin.lora,
        trust_remote_code=spec.subject.trust_remote_code,
        allow_pickle=spec.subject.allow_pickle,
    )
    same = msgspec.structs.replace(spec, subject=subject)
    if lack := lack_of_memory(architecture, same, free_host_bytes()):
        raise RunFailure(lack.failure_class, f"the reference on the CPU: {lack.message}")
    generator = _loaded_reference(subject)
    try:
        prompt_ids = divergence.check_prompts(generator.vocabulary, spec.workload.prompt, spec.protocol.seed)
        workload = msgspec.structs.replace(spec.workload, cache="dynamic")
        return divergence.trace(generator, prompt_ids, workload)
    finally:
        generator.close()


def _loaded_reference(subject: Subject) -> Generator:
    try:
        return registry.loader(subject.runtime).load(subject)
    except RunFailure as failure:
        raise RunFailure(failure.failure_class, f"the reference on the CPU: {failure.message}") from failure


class Checks:
    """A loaded model's answers to the check prompts, asked once for each kind of cache, and how far they
    are from the reference's."""

    def __init__(
        self, generator: Generator, reference: str | None, expected: divergence.Trace | None
    ) -> None:
        self._generator = generator
        self._reference = reference
        self._expected = expected
        self._answers: dict[str, tuple[divergence.Trace, Divergence | None]] = {}

    def answer(self, spec: RunSpec) -> tuple[divergence.Trace | None, Divergence | None]:
        """The answers with the spec's kind of cache; none of dummy weights, whose tokens are noise."""
        if spec.subject.weights == "dummy":
            return None, None
        if self._generator.scorer is None:
            return None, self._tokens_alone(spec)
        if spec.workload.cache not in self._answers:
            self._answers[spec.workload.cache] = self._ask(spec)
        return self._answers[spec.workload.cache]

    def _ask(self, spec: RunSpec) -> tuple[divergence.Trace, Divergence | None]:
        generator, expected = self._generator, self._expected
        if self._reference is None or expected is None:
            prompt_ids = divergence.check_prompts(
                generator.vocabulary, spec.workload.prompt, spec.protocol.seed
            )
            return divergence.trace(generator, prompt_ids, spec.workload), None
        self._check_vocabulary(expected)
        own = divergence.trace(generator, expected.prompt_ids, spec.workload)
        logits = divergence.forced_logits(generator, expected.prompt_ids, expected.tokens, spec.workload)
        return own, divergence.compare(self._reference, expected, own, logits)

    def _tokens_alone(self, spec: RunSpec) -> Divergence | None:
        if self._reference is None or self._expected is None:
            return None
        self._check_vocabulary(self._expected)
        return divergence.compare_tokens(self._reference, self._expected, self._generator, spec.workload)

    def _check_vocabulary(self, expected: divergence.Trace) -> None:
        ids = (expected.prompt_ids, expected.tokens, expected.top_ids)
        if max(int(array.max()) for array in ids) >= self._generator.vocabulary.size:
            raise UserError(
                f"the reference {self._reference} has another vocabulary; compare runs of one model"
            )
