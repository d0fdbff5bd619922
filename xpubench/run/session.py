"""A subject made ready for its runs: checked, loaded and closed, with a record of whatever fails."""

from collections.abc import Callable, Iterator
from time import perf_counter_ns
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from xpubench.catalog import CatalogDevice, identify_device
from xpubench.catalog.architecture import Architecture, architecture_of
from xpubench.environment import Environment
from xpubench.errors import UserError
from xpubench.failures import classify, failed_record
from xpubench.measure.environment import capture
from xpubench.plan import Plan
from xpubench.progress import Progress
from xpubench.record import Record
from xpubench.results import ResultsDirectory
from xpubench.runtimes import registry
from xpubench.runtimes.base import Device, Generator
from xpubench.spec import AccuracySpec, RunSpec, Subject

Spec = TypeVar("Spec", RunSpec, AccuracySpec)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a subject and of its device before the load. `available_bytes` is the device's free
    memory, all of it where the driver does not tell."""

    device: Device
    config: dict[str, Any]
    architecture: Architecture | None
    catalog_device: CatalogDevice | None
    available_bytes: int | None


class Session(Generic[Spec]):
    """Runs of one subject, which is loaded once. As a context manager, it closes the loaded model.

    `specs` are the runs that are still to be made. Whatever ends the preparation of them all, an error or an
    interruption, becomes the record of each; a UserError goes up, as the user must change something.
    """

    def __init__(self, specs: list[Spec], results: ResultsDirectory, progress: Progress) -> None:
        self.subject: Subject = specs[0].subject
        if any(spec.subject != self.subject for spec in specs):
            raise ValueError("the specs of one session have one subject")
        self.specs: list[Spec] = specs
        self.progress = progress
        self.environment = Environment()
        self.plans: dict[str, Plan | None] = {}
        self.load_s = 0.0
        self._results = results
        self._loader = registry.loader(self.subject.runtime)
        self._facts: Facts | None = None
        self._generator: Generator | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._generator is not None:
            self._generator.close()
            self._generator = None

    @property
    def facts(self) -> Facts:
        """What `check` found."""
        assert self._facts is not None
        return self._facts

    @property
    def generator(self) -> Generator:
        """The model that `load` loaded."""
        assert self._generator is not None
        return self._generator

    def check(self) -> None:
        """The preflight: whether the subject can be asked for here, and its surroundings.

        Raises UserError for what the user must change, RunFailure for a config that cannot be used.
        """
        subject = self.subject
        self._loader.set_up()
        device = self._loader.device(subject)
        facts = device.facts()
        self.environment = capture(facts, registry.packages())
        self._loader.check(subject)
        config = self._loader.model_config(subject)
        self._facts = Facts(
            device=device,
            config=config,
            architecture=architecture_of(config),
            catalog_device=identify_device(facts.name, facts.total_memory_bytes),
            available_bytes=facts.free_memory_bytes or facts.total_memory_bytes,
        )

    def fetch(self) -> None:
        """Downloads and checks the checkpoint, which counts neither in the load's time nor in its memory."""
        self._loader.fetch(self.subject, self.progress.say)

    def load(self) -> None:
        """Loads the subject, and takes the time of that."""
        subject = self.subject
        self.progress.say(f"loading {subject.weights_from} in {subject.dtype} on {subject.device}")
        start_ns = perf_counter_ns()
        self._generator = self._loader.load(subject)
        self.load_s = (perf_counter_ns() - start_ns) / 1e9

    def attempt(self, work: Callable[[], None]) -> Iterator[Record]:
        """Does a part of the preparation. What ends it is written and yielded as the record of each run,
        none of which is left then."""
        try:
            work()
        except UserError:
            raise
        except BaseException as error:
            failure = classify(error, self.subject.device)
            specs, self.specs = self.specs, []
            for spec in specs:
                yield self.write(failed_record(spec, self.environment, failure, self.plans.get(spec.id)))

    def refuse(self, spec: Spec, error: BaseException) -> Record:
        """Writes the record of a run that is not worth a try."""
        self.specs = [other for other in self.specs if other is not spec]
        failure = classify(error, self.subject.device)
        return self.write(failed_record(spec, self.environment, failure, self.plans.get(spec.id)))

    def write(self, record: Record) -> Record:
        """Writes a record to the results directory, and returns it."""
        self._results.write(record)
        return record
