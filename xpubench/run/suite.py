"""Many runs: the command lines of a suite, and orders in worker processes, which skip finished runs."""

import fcntl
import shlex
import tomllib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from xpubench.catalog import find_model, models
from xpubench.errors import RunFailure, UserError, unknown
from xpubench.files import expanded
from xpubench.record import Record
from xpubench.results import ROUND, ResultsDirectory
from xpubench.run.order import Order, Spec
from xpubench.run.supervisor import Attempt, find_mpirun, records_of
from xpubench.runtimes.registry import DEFAULT, loader

Ranks = Annotated[int, msgspec.Meta(ge=1)]
Rerun = Literal["failed", "all"]
DEFAULT_TIMEOUT_S = 3600.0
SUITES = Path(str(files("xpubench") / "suites"))
# A suite with more is a mistake, such as one list too many in `vary`.
MOST_COMMAND_LINES = 10_000
MOST_ROUNDS = 1000


class Grid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Command lines of `xpubench generate`: each model with `flags` and one alternative of each list in
    `vary`. `models` are names, or `fp16`, `int4` or `embedded` for those of the catalog. `ranks` is the
    number of ranks that share each model under mpirun. `stacks` holds by a runtime's name the flags that
    choose it here; any other runtime takes those of the default one. `environment` names the one whose
    interpreter runs it; with `optional`, it is left out where no interpreter here has the stack."""

    models: list[str] | Literal["fp16", "int4", "embedded"]
    flags: str = ""
    vary: list[list[str]] = []
    stacks: dict[str, str] = {}
    ranks: Ranks | None = None
    environment: str | None = None
    optional: bool = False


class SuiteEnvironment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An environment of workers: its interpreter, None for this process's, and variables that are set
    there. A relative path starts at the directory of the suite's file, and that of a built-in one at the
    working directory."""

    python: str | None = None
    variables: dict[str, str] = {}


class Suite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a suite's file holds; `rounds` is how often it runs where nobody says."""

    title: str
    grid: list[Grid]
    rounds: int = 1
    environments: dict[str, SuiteEnvironment] = {}

    def __post_init__(self) -> None:
        for grid in self.grid:
            if grid.environment is not None and grid.environment not in self.environments:
                raise UserError(f"the suite has no environment {grid.environment!r} ([environments.NAME])")

    @property
    def stacks(self) -> list[str]:
        """The runtimes that every grid has flags for."""
        first = self.grid[0].stacks if self.grid else {}
        return [name for name in first if all(name in grid.stacks for grid in self.grid)]


class CommandLine(msgspec.Struct, frozen=True, kw_only=True):
    """The flags of one worker, those of its grid and `more` from outside, the number of ranks that share its
    model, None for one process, and the environment that its grid asks for."""

    flags: list[str]
    ranks: int | None
    more: list[str] = []
    environment: str | None = None
    optional: bool = False


def built_in() -> list[str]:
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def read_suite(name: str) -> Suite:
    """The suite in a file, or the built-in one of that name; UserError where there is no valid one."""
    if name.endswith(".toml") or "/" in name:
        try:
            text = Path(name).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the suite {name}: {error}") from error
    elif name in built_in():
        text = (SUITES / f"{name}.toml").read_text()
    else:
        raise unknown("suite", name, built_in())
    try:
        read = msgspec.convert(tomllib.loads(text), Suite)
        return _placed(read, Path(name).parent if name.endswith(".toml") or "/" in name else Path())
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UserError(f"the suite {name} is not valid: {error}") from error


def command_lines(
    suite: Suite, names: list[str] | None, more: list[str], *, ranks: int | None = None, stack: str = DEFAULT
) -> list[CommandLine]:
    """All command lines of a suite for the runtime `stack`, with the models `names` in place of its own and
    `more` flags. Where it runs over ranks, their number is `ranks`, else the catalog's, else the suite's.
    UserError where mpirun is needed and missing, and for more than `MOST_COMMAND_LINES`."""
    count = sum(len(names or _models(grid)) * prod(map(len, grid.vary)) for grid in suite.grid)
    if count > MOST_COMMAND_LINES:
        raise UserError(
            f"the suite has {count} command lines, and at most {MOST_COMMAND_LINES} are taken; shorten its "
            "lists of models or of `vary`, or give several values to one flag, which share one load"
        )
    if any(grid.ranks for grid in suite.grid):
        find_mpirun()
    elif ranks is not None:
        raise UserError("this suite runs each model in one process; leave out --ranks")
    lines = [
        CommandLine(
            flags=["-m", name, *words(" ".join([grid.flags, _stack_flags(grid, stack), *variant]))],
            more=more,
            ranks=grid.ranks and (ranks or getattr(find_model(name), "ranks", None) or grid.ranks),
            environment=grid.environment,
            optional=grid.optional,
        )
        for grid in suite.grid
        for name in names or _models(grid)
        for variant in product(*grid.vary)
    ]
    texts = (" ".join([*line.flags, *line.more]) for line in lines)
    if nul := next((text for text in texts if "\0" in text), None):
        raise UserError(f"the command line {nul!r} holds a NUL character; remove it")
    return lines


def words(flags: str) -> list[str]:
    """Flags as a shell splits them."""
    try:
        return shlex.split(flags)
    except ValueError as error:
        raise UserError(f"cannot read the flags {flags!r}: {error}") from error


def lacking_flags(orders: Sequence[Order]) -> dict[str, list[str]]:
    """By each flag that the hub's files need and that was not given, the models that need it."""
    lacking: dict[str, list[str]] = {}
    for subject in (order.specs[0].subject for order in orders):
        known = find_model(subject.model)
        if (
            known is None
            or Path(subject.model).is_dir()
            or subject.weights == "dummy"
            or subject.weights_from != subject.model
        ):
            continue
        for flag in known.needed_flags:
            given = getattr(subject, flag.strip("-").replace("-", "_"))
            if not given and known.id not in lacking.setdefault(flag, []):
                lacking[flag].append(known.id)
    return {flag: names for flag, names in lacking.items() if names}


def run_orders(
    orders: Sequence[Order],
    results: ResultsDirectory,
    *,
    rerun: Rerun | None,
    timeout_s: float,
    say: Callable[[str], None] = lambda text: None,
) -> Generator[list[Record]]:
    """Runs each order in a worker process, except runs that have a record and are not to be made again, and
    yields each run's records; those of a group are the records of its tasks.

    A worker that dies, or that has no new record within `timeout_s` seconds, fails the run that was at work,
    whose record has that failure class; its other runs get a new worker. An interruption ends all.
    """
    for order in orders:
        pending = [spec for spec in order.specs if wanted(results, spec, rerun)]
        while pending:
            attempt = Attempt(msgspec.structs.replace(order, specs=pending, results=str(results.path)), say)
            yield from attempt.run(timeout_s)
            pending = attempt.pending


def wanted(results: ResultsDirectory, spec: Spec, rerun: Rerun | None) -> bool:
    """Whether a run is to be made: it has no readable record, was interrupted, ran other weights than those
    that lie in the model's directory now, or `rerun` asks for it."""
    records = records_of(results, spec)
    statuses = {record.status for record in records}
    if not statuses or "interrupted" in statuses or rerun == "all":
        return True
    if any(_other_weights(record) for record in records):
        return True
    return rerun == "failed" and statuses != {"ok"}


def _other_weights(record: Record) -> bool:
    subject = record.spec.subject
    directory = expanded(subject.model)
    if record.fingerprint is None or not (directory / "config.json").is_file():
        return False
    from xpubench.weights.fingerprint import of_directory
    from xpubench.weights.source import pickle_files, weight_files

    try:
        # A converted model, such as an IR, has the fingerprint of its checkpoint, which its runtime knows.
        is_checkpoint = weight_files(directory) or pickle_files(directory)
        now = of_directory(directory) if is_checkpoint else loader(subject.runtime).fingerprint(subject)
    except ImportError:  # the stack is in another environment
        return False
    except (RunFailure, OSError, ValueError):  # the run itself says what is wrong
        return True
    return now != record.fingerprint


@contextmanager
def locked(results: ResultsDirectory) -> Iterator[None]:
    """Locks the results directory; UserError while another suite writes to it."""
    with (results.path / ".suite.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another suite writes to {results.path}; choose another --results-dir"
            ) from error
        yield


def round_directories(directory: Path, rounds: int) -> list[Path]:
    """The results directory of each round. UserError for too few or too many rounds."""
    if not 1 <= rounds <= MOST_ROUNDS:
        raise UserError(f"--rounds must be from 1 to {MOST_ROUNDS}, not {rounds}")
    return [directory / f"{ROUND}{number}" for number in range(1, rounds + 1)]


def _placed(suite: Suite, start: Path) -> Suite:
    """The suite with the paths of its interpreters from `start` on."""

    def placed(one: SuiteEnvironment) -> SuiteEnvironment:
        if one.python is None or "/" not in one.python:
            return one
        # A path that is resolved would lead out of a virtual environment.
        return msgspec.structs.replace(one, python=str((start / expanded(one.python)).absolute()))

    found = {name: placed(one) for name, one in suite.environments.items()}
    return msgspec.structs.replace(suite, environments=found)


def _stack_flags(grid: Grid, stack: str) -> str:
    return grid.stacks.get(stack, grid.stacks.get(DEFAULT, ""))


def _models(grid: Grid) -> list[str]:
    if isinstance(grid.models, list):
        return grid.models
    chosen: dict[str, Callable[[Any], bool]] = {
        "fp16": lambda one: one.fp16,
        "int4": lambda one: one.int4,
        "embedded": lambda one: one.status == "embedded",
    }
    return [one.id for one in models() if chosen[grid.models](one)]
