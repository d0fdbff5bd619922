"""A model sharded over ranks by DeepSpeed's AutoTP. Rank 0 runs the harness; the others follow it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial, wraps
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import msgspec
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from xpubench.catalog.architecture import architecture_of, head_shares
from xpubench.distributed import autotp, rendezvous
from xpubench.distributed.all_reduce import measure_sum
from xpubench.distributed.options import DeepSpeedOptions, RankFacts
from xpubench.distributed.shards import CheckpointWeights, DummyWeights, Shard, sharded_model
from xpubench.errors import RunFailure, UserError
from xpubench.explanation import Spread
from xpubench.failures import classify
from xpubench.measure.device import TorchDevice
from xpubench.measure.environment import crowded_hosts
from xpubench.measure.host import peak_host_bytes
from xpubench.measure.ledger.measured import Measured
from xpubench.measure.ledger.ranks import without_waiting
from xpubench.measure.profile import time_in_collectives
from xpubench.measure.times import latest
from xpubench.process.signals import ENDING
from xpubench.record import Collectives, Failure, SyncPolicy
from xpubench.runtimes import registry
from xpubench.runtimes.base import Generation, Generator, Logits, Rows, Scores, TokenIds, Verification
from xpubench.runtimes.options import RuntimeDescription
from xpubench.runtimes.pytorch.runtime import PyTorchRuntime
from xpubench.spec import Subject, Workload
from xpubench.weights.fingerprint import config_digest, fingerprint
from xpubench.weights.load import LoadedWeights
from xpubench.weights.pretrained import ending_of, load_tokenizer, tokenizer_doubts
from xpubench.weights.source import read_config, source_of, weight_files

P = ParamSpec("P")
R = TypeVar("R")
# The errors of gloo and of the stores contain these words when a collective times out.
TIMEOUT_WORDS = ("timed out", "timeout")
# After these failures the other ranks still wait, or do not see what interrupted rank 0.
ENDS_THE_JOB = ("timeout", "interrupted")


def together(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Runs a method on all ranks: where rank 0 calls it, the others are told to call it too."""

    @wraps(method)
    def on_all_ranks(self: Any, /, *arguments: P.args, **named: P.kwargs) -> R:
        if self.job.rank == 0:
            self.job.send((method.__name__, arguments, named))
        with (
            in_step(self.job, self.subject.device, measured=True),
            self.job.deadline(hangs=_hangs(self.subject)),
        ):
            return method(self, *arguments, **named)

    return on_all_ranks


class TensorParallelRuntime(PyTorchRuntime):
    """A transformers model that AutoTP shards: every call happens on all ranks, and times are those of the
    latest rank."""

    job: rendezvous.RankGroup
    engine: Any = None
    reads_slices = False
    load_peak_host_bytes = 0
    crowded: list[str] = []

    @classmethod
    def set_up(cls) -> None:
        super().set_up()
        # The all-reduce that this variable turns on never frees its memory.
        os.environ.pop("TORCH_LLM_ALLREDUCE", None)

    @classmethod
    def check(cls, subject: Subject) -> None:
        super().check(subject)
        job = rendezvous.current()
        autotp.import_deepspeed(subject.device)
        autotp.check_backend(subject.device)
        if _options_of(subject).shared_memory:
            autotp.check_shared_memory(job)
        config = _config(subject)
        # A slice of a quantized weight lacks its scales, which lie beside the weight.
        if "quantization_config" in config:
            raise UserError(
                f"{subject.model} is a quantized checkpoint, which runs on one device, not over ranks"
            )
        if architecture := architecture_of(config):
            head_shares(architecture.num_heads, architecture.num_kv_heads, subject.tp_size)

    @classmethod
    def load(cls, subject: Subject) -> Self:
        job = rendezvous.current()
        if job.rank == 0:
            job.send(("load", (subject,), {}))
        with in_step(job, subject.device):
            _check_same_model(job, subject)
            TorchDevice(subject.device).reset_peaks()
            autotp.start(job, subject.device, shared_memory=_options_of(subject).shared_memory)
            cls.job = job
            runtime = super().load(subject)
            runtime.load_peak_host_bytes = peak_host_bytes()
            # All ranks must score in the same way.
            runtime.scores_rows_alone = all(job.gather(runtime.scores_rows_alone))
            if subject.device == "cpu":
                threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
                runtime.crowded = crowded_hosts(job.gather((job.places[job.rank].host, threads, cores)))
        return runtime

    @classmethod
    def divides_heads(cls, subject: Subject) -> bool:
        """Whether a later step divides the heads of the model's config by the ranks."""
        return False

    @classmethod
    def weights(cls, subject: Subject) -> LoadedWeights:
        job = rendezvous.current()
        dtype = getattr(torch, subject.dtype)

        def shard(model: Any, dtype: torch.dtype) -> Any:
            if job.size == 1:
                return model
            # The time in which a rank reads its weights is no part of a collective.
            job.gather(None)
            with job.deadline(hangs=_hangs(subject)):
                cls.engine = autotp.shard(model, dtype, subject.device)
            return cls.engine.module

        loaded = _part(subject, dtype, shard) if job.size > 1 else None
        cls.reads_slices = loaded is not None
        if loaded is None:
            whole = super().weights(subject)
            loaded = msgspec.structs.replace(whole, model=shard(whole.model, dtype))
        autotp.check_sharded(loaded.model, job.size)
        if not cls.divides_heads(subject):
            autotp.tell_config(loaded.model, job.rank, job.size)
        autotp.keep_mask(loaded.model)
        return loaded

    def optimize(self) -> None:
        # Some stacks are compared with the plain model here, in generations of all ranks.
        self.job.gather(None)
        with self.job.deadline(hangs=_hangs(self.subject)):
            super().optimize()

    def synchronize(self) -> None:
        super().synchronize()
        dist.barrier()

    @together
    def prepare(self, workload: Workload) -> None:
        super().prepare(workload)

    @together
    def generate(self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy) -> Generation:
        generation = super().generate(prompt_ids, workload, sync_policy)
        times = latest(self.job.gather(generation.times))
        return msgspec.structs.replace(generation, times=times)

    @together
    def continue_random_cache(self, prompt_ids: TokenIds, workload: Workload) -> Generation | None:
        generation = super().continue_random_cache(prompt_ids, workload)
        if generation is None:
            return None
        times = latest(self.job.gather(generation.times))
        return msgspec.structs.replace(generation, times=times)

    @together
    def verify(self, prompt_ids: TokenIds, workload: Workload) -> Verification:
        verification = super().verify(prompt_ids, workload)
        # A second generation, because the first of a shape also pays for one-time work.
        dist.barrier()
        start_ns = perf_counter_ns()
        again = super().verify
        count, collectives_ns = time_in_collectives(lambda: again(prompt_ids, workload), self.subject.device)
        own = Collectives(
            rank=self.job.rank,
            generation_ns=perf_counter_ns() - start_ns,
            collectives=count,
            collectives_ns=collectives_ns,
        )
        return msgspec.structs.replace(verification, collectives=self.job.gather(own))

    @together
    def explain(self, prompt_ids: TokenIds, workload: Workload) -> Measured:
        """The tokens of this rank, with its wait for the others apart from its collectives."""
        own = super().explain(prompt_ids, workload)
        return without_waiting(own, self.job.gather(own))

    @together
    def trace(
        self, prompt_ids: TokenIds, workload: Workload, forced: TokenIds | None
    ) -> tuple[TokenIds, Logits]:
        return super().trace(prompt_ids, workload, forced)

    @together
    def target_logprobs(self, token_ids: TokenIds, rows: Rows, targets: TokenIds) -> Scores:
        return super().target_logprobs(token_ids, rows, targets)

    @together
    def regrets(self, prompt_ids: TokenIds, tokens: TokenIds, rank: int) -> NDArray[np.float32]:
        return super().regrets(prompt_ids, tokens, rank)

    @together
    def checksum(self) -> int | None:
        sums: list[int] = self.job.gather(super().checksum() or 0)
        return sum(sums)

    @together
    def describe(self) -> RuntimeDescription:
        return super().describe()

    def described(self) -> dict[str, Any]:
        description, device = super().described(), self.subject.device
        place = self.job.places[self.job.rank]
        own = RankFacts(
            rank=self.job.rank,
            host=place.host,
            process=place.pid,
            device=device if device == "cpu" else f"{device}:{self.model.device.index}",
            device_name=TorchDevice(device).facts().name,
            weight_bytes=description["weight_bytes"],
            load_peak_host_bytes=self.load_peak_host_bytes,
            peak_host_bytes=peak_host_bytes(),
            peak_device_bytes=TorchDevice(device).peak_bytes(),
            torch_threads=torch.get_num_threads(),
        )
        return description | {
            "backend": dist.get_backend(),
            "shared_memory": _options_of(self.subject).shared_memory,
            "reads_slices": self.reads_slices,
            "sum_ns": self._sum_ns if self.job.size > 1 else None,
            "ranks": self.job.gather(own),
        }

    @cached_property
    def _sum_ns(self) -> Spread:
        """The time of a sum as the model itself sums: through DeepSpeed, in the model's dtype. All ranks ask
        for it first at the same moment."""
        import deepspeed.comm

        hidden_size = self.model.config.get_text_config().hidden_size
        states = torch.zeros(1, 1, hidden_size, dtype=self.model.dtype, device=self.model.device)
        add_up = partial(deepspeed.comm.inference_all_reduce, states)
        return measure_sum(add_up, super().synchronize, self.job.gather)

    def doubts(self) -> list[str]:
        return [*super().doubts(), *self.crowded]

    @together
    def close(self) -> None:
        type(self).engine = None
        super().close()


def _options_of(subject: Subject) -> DeepSpeedOptions:
    assert isinstance(subject.options, DeepSpeedOptions)
    return subject.options


def _hangs(subject: Subject) -> bool:
    """Whether a collective hangs for ever when a rank is missing. Those of gloo time out."""
    return _options_of(subject).shared_memory or subject.device != "cpu"


def follow(job: rendezvous.RankGroup) -> None:
    """What a rank other than 0 does: it makes the runtime's calls that rank 0 sends, until rank 0 leaves."""
    runtime: Generator | None = None
    while True:
        name, arguments, named = job.receive()
        if name == "leave":
            return
        try:
            if name == "load":
                runtime = registry.loader(arguments[0].runtime).load(*arguments)
            else:
                getattr(runtime, name)(*arguments, **named)
        # All ranks failed alike, and rank 0 reports it.
        except (Exception, KeyboardInterrupt):
            continue


@contextmanager
def in_step(job: rendezvous.RankGroup, device: str, *, measured: bool = False) -> Iterator[None]:
    """Runs work that all ranks do at once. A failure on all of them is raised. A failure on only some of
    them ends the job, because the others would wait for those for ever. Where something may have been
    `measured` before, rank 0 raises its failure too, and the job ends once the record is written."""
    try:
        yield
    except BaseException as error:
        failure = _failure(error, device, job)
        # A launcher signals the other ranks when one has died, which must not count as an interruption.
        with ignored_signals():
            if failure.failure_class in ENDS_THE_JOB or not job.all_failed(error):
                if not measured or job.rank != 0:
                    job.fail(failure)
                # A rank that died is what the watchdog has recorded by now, and this failure follows from it.
                job.end_if_failed()
                job.lost = failure
        raise
    job.skip_turn()


@contextmanager
def ignored_signals() -> Iterator[None]:
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in ENDING]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _failure(error: BaseException, device: str, job: rendezvous.RankGroup) -> Failure:
    if isinstance(error, RuntimeError) and any(word in str(error).lower() for word in TIMEOUT_WORDS):
        seconds = job.timeout.total_seconds()
        error = RunFailure("timeout", f"waited {seconds:g} s for the other ranks in a collective")
    # `classify` drops the traceback, which the caller still needs.
    where = error.__traceback__
    failure = classify(error, device)
    error.__traceback__ = where
    return failure


def _check_same_model(job: rendezvous.RankGroup, subject: Subject) -> None:
    """UserError where a rank lacks the model or sees another one than rank 0."""
    every = job.gather(job.agreed(lambda: _seen(subject)))
    other = next((rank for rank, theirs in enumerate(every) if theirs != every[0]), None)
    if other is not None:
        raise UserError(
            f"rank {other} on {job.places[other].host} sees another {subject.model} than rank 0: its config "
            "or its weights differ"
        )


def _seen(subject: Subject) -> list[str]:
    """A digest of what must be the same on all ranks: config and weights of the model and of its adapter.
    Modification times may differ, and so may the tokenizer, which only rank 0 uses."""
    if subject.weights == "dummy":
        return [config_digest(_config(subject))]
    found = [fingerprint(source_of(subject).directory)]
    if subject.lora is not None:
        found.append(fingerprint(Path(subject.lora)))
    return [digest for one in found for digest in (one.config, one.weights)]


def _config(subject: Subject) -> dict[str, Any]:
    trust = subject.trust_remote_code
    return read_config(subject.model, revision=subject.revision, trust_remote_code=trust)


def _part(subject: Subject, dtype: torch.dtype, shard: Shard) -> LoadedWeights | None:
    """This rank's part of the model, read slice by slice; None where it must be cut from the whole model
    instead."""
    if subject.weights == "dummy":
        model = sharded_model(
            _config(subject), dtype, shard, partial(DummyWeights, device=subject.device, seed=0)
        )
        return None if model is None else LoadedWeights(model=model)
    source = source_of(subject)
    # An adapter is merged into whole weights.
    if subject.lora is not None or not weight_files(source.directory):
        return None
    if source.config.get("model_type") not in CONFIG_MAPPING_NAMES:
        return None
    model = sharded_model(source.config, dtype, shard, partial(CheckpointWeights.of, source))
    if model is None:
        return None
    tokenizer = load_tokenizer(source.directory, subject.trust_remote_code)
    return LoadedWeights(
        model=model,
        tokenizer=tokenizer,
        ending=ending_of(source.directory),
        revision=source.revision,
        doubts=tokenizer_doubts(source, tokenizer),
    )
