"""A subject made ready for its runs: checked, loaded and closed, with a record of whatever fails."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter_ns
from typing import Any, Generic, TypeVar

import msgspec

from xpubench.catalog import CatalogDevice, identify_device
from xpubench.catalog.architecture import Architecture, architecture_of
from xpubench.environment import DeviceFacts, Environment
from xpubench.errors import RunFailure, UserError
from xpubench.expectation import assumed_card
from xpubench.explanation import DeviceCard
from xpubench.failures import classify, failed_record
from xpubench.measure.environment import capture
from xpubench.measure.host import resident_memory
from xpubench.plan import Plan
from xpubench.progress import Progress
from xpubench.record import Load, OperatorChecks, Record, RunChecks, WeightsFingerprint
from xpubench.results import ResultsDirectory
from xpubench.runtimes import registry
from xpubench.runtimes.base import Device, Generator
from xpubench.spec import AccuracySpec, RunSpec, Subject

AnySpec = TypeVar("AnySpec", RunSpec, AccuracySpec)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a subject and of its device before the load. `available_bytes` is the device's free
    memory, or all of it where the driver does not report the free part."""

    device: Device
    config: dict[str, Any]
    architecture: Architecture | None
    catalog_device: CatalogDevice | None
    available_bytes: int | None


class Session(ExitStack, Generic[AnySpec]):
    """Runs of one subject, which is loaded once, or again where a run asks for it, and closed at the end of
    the context. `specs` are the runs that are still to be made, `facts` what `check` found, `operators` what
    `check_operators` found in `operators_s` seconds, `generator` the model that `load` loaded last, and
    `loaded` what is known of that load."""

    facts: Facts
    generator: Generator
    loaded: Load

    def __init__(self, specs: list[AnySpec], results: ResultsDirectory, progress: Progress) -> None:
        super().__init__()
        self.subject: Subject = specs[0].subject
        if any(spec.subject != self.subject for spec in specs):
            raise ValueError("the specs of one session have one subject")
        self.specs: list[AnySpec] = specs
        self.progress = progress
        self.environment = Environment()
        self.plans: dict[str, Plan | None] = {}
        self.is_loaded = False
        self.operators: OperatorChecks | None = None
        self.operators_s: float | None = None
        self.fingerprint: WeightsFingerprint | None = None
        self._results = results
        # What closes the loaded model.
        self._model = self.enter_context(ExitStack())
        self._loader = registry.loader(self.subject.runtime)

    def check(self) -> None:
        """The preflight: whether this machine can run the subject. It also captures the environment.

        Raises UserError for what the user must change, RunFailure for a config that cannot be used.
        """
        subject = self.subject
        self._loader.set_up()
        device = self._loader.device(subject)
        facts = device.facts()
        self.environment = capture(facts, registry.packages())
        self._loader.check(subject)
        config = self._loader.model_config(subject)
        self.facts = Facts(
            device=device,
            config=config,
            architecture=architecture_of(config),
            catalog_device=identify_device(facts.name, facts.total_memory_bytes),
            available_bytes=facts.free_memory_bytes or facts.total_memory_bytes,
        )

    def fetch(self) -> None:
        """Downloads and checks the checkpoint, which counts neither in the load's time nor in its memory."""
        with self.downloads():
            self._loader.fetch(self.subject, self.progress.say)
        self.fingerprint = self._loader.fingerprint(self.subject)

    @contextmanager
    def downloads(self) -> Iterator[None]:
        """A block that may download, whose time counts in no limit."""
        self.progress.downloading(True)
        try:
            yield
        finally:
            self.progress.downloading(False)

    def check_operators(self) -> None:
        """Compares the operators that the subject will use with float64, or finds that in the cache;
        RunFailure `numerics` where one is wrong."""
        start_ns = perf_counter_ns()
        self.operators = self._loader.operators(
            self.subject, self.facts.architecture, self.environment, self.progress.say
        )
        if self.operators is not None:
            self.operators_s = (perf_counter_ns() - start_ns) / 1e9
        wrong = self.operators.problems("wrong") if self.operators else []
        if wrong:
            more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise RunFailure("numerics", f"{self.subject.device} computes wrongly: {wrong[0]}{more}")

    def card(self, ceiling_gb_per_s: float) -> DeviceCard:
        """The device card of the subject's stack, an assumed one where it was not measured."""
        subject = self.subject
        try:
            found = self._loader.card(subject, self.environment, ceiling_gb_per_s, self.progress.say)
        except Exception as error:  # The type depends on the device. The run needs no card.
            self.progress.say(f"no device card: {type(error).__name__}: {error}")
            found = None
        return found or assumed_card(asynchronous=subject.device != "cpu")

    def load(self) -> None:
        """Loads the subject and times that. An earlier load of it is closed first."""
        subject = self.subject
        self._model.close()
        self.is_loaded = False
        self.progress.say(f"loading {subject.weights_from} in {subject.dtype} on {subject.device}")
        start_ns = perf_counter_ns()
        self.generator = self._loader.load(subject)
        self._model.callback(self.generator.close)
        load_s = (perf_counter_ns() - start_ns) / 1e9
        self.loaded = Load(load_s=load_s, **resident_memory()._asdict())
        self.is_loaded = True
        if (where := self.generator.elsewhere) is not None:
            device = DeviceFacts(kind=subject.device, name=where)
            self.environment = msgspec.structs.replace(self.environment, device=device)
            self.facts = msgspec.structs.replace(self.facts, catalog_device=None)

    def failed(self, error: BaseException, specs: list[AnySpec]) -> list[Record]:
        """The records of runs that one error or interruption ended. A UserError is raised again, because the
        user must change something."""
        if isinstance(error, UserError):
            raise error
        failure = classify(error, self.subject.device)
        records = [failed_record(spec, self.environment, failure, self.plans.get(spec.id)) for spec in specs]
        checks = RunChecks(operators=self.operators, operators_s=self.operators_s)
        found = {"checks": checks, "fingerprint": self.fingerprint}
        return [msgspec.structs.replace(record, **found) for record in records]

    def fail_all(self, error: BaseException) -> list[Record]:
        """Writes and returns the records of all runs, for an error that ended their preparation. An
        interruption is raised again, because no run was at work that it could be the outcome of."""
        if isinstance(error, KeyboardInterrupt):
            raise error
        return [self.write(record) for record in self.failed(error, self.specs)]

    def write(self, record: Record) -> Record:
        """Writes a record to the results directory, and returns it."""
        self._results.write(record)
        return record
