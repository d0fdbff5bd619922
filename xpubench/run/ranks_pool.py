"""A suite over many machines: rank 0 of an MPI job hands out the orders, and each other rank runs one at a
time."""

import os
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from xpubench.distributed.launch import INSTALL
from xpubench.environment import Environment
from xpubench.errors import UserError, first_line
from xpubench.failures import failed_record
from xpubench.record import Failure, Record, decode, encode
from xpubench.results import ResultsDirectory
from xpubench.run.order import Order
from xpubench.run.suite import Rerun, run_orders, wanted
from xpubench.run.supervisor import records_of

# By these variables a launcher's processes know each other; a worker is none of them.
LAUNCHER = ("PMI_", "PMIX_", "MPI_LOCAL", "MPIR_", "HYDI_", "OMPI_", "PALS_")


class Handed(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank made of an order: its records as JSON, by a group's id the ids of its tasks, and why
    runs have no record where it failed. `place` names the rank."""

    place: str
    records: list[bytes]
    tasks: dict[str, list[str]]
    failure: str | None = None


@contextmanager
def pool() -> Iterator[Any]:
    """On rank 0 the executor of `mpi4py.futures`; on any other rank None, after it has run what rank 0
    handed it until rank 0 left. UserError where this is no MPI job of at least two ranks."""
    try:
        from mpi4py import MPI
        from mpi4py.futures import MPICommExecutor
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"--executor mpi needs mpi4py and its MPI ({first_line(error)}); {INSTALL}"
        ) from error
    if MPI.COMM_WORLD.Get_size() < 2:
        raise UserError(
            "--executor mpi hands runs to the other ranks of a job: mpirun -np N xpubench suite ..., "
            "N at least 2"
        )
    for name in [name for name in os.environ if name.startswith(LAUNCHER)]:
        del os.environ[name]
    with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
        yield executor


def hand_out(
    executor: Any,
    orders: Sequence[Order],
    results: ResultsDirectory,
    *,
    rerun: Rerun | None,
    timeout_s: float,
    say: Callable[[str], None],
) -> Generator[list[Record]]:
    """As `run_orders`, each order on a rank of its own. A rank writes its records to the results directory
    under this path; where that is another disk, they are written here too."""
    asked = []
    for order in orders:
        if order.ranks is not None:
            raise UserError("--executor mpi is for suites that run each model in one process")
        if pending := [spec for spec in order.specs if wanted(results, spec, rerun)]:
            asked.append(msgspec.structs.replace(order, specs=pending, results=str(results.path)))
    futures = {
        executor.submit(perform_encoded, msgspec.json.encode(order), timeout_s): order for order in asked
    }
    try:
        for future in as_completed(futures):
            done: Handed = msgspec.json.decode(future.result(), type=Handed)
            say(f"{done.place}: {len(done.records)} records of {futures[future].specs[0].subject.model}")
            yield from _gathered(results, futures[future], done)
    finally:
        for future in futures:
            future.cancel()


def perform_encoded(order: bytes, timeout_s: float) -> bytes:
    """Runs an order, as JSON, in a worker of this rank, and returns a `Handed` as JSON."""
    from mpi4py import MPI

    asked = msgspec.json.decode(order, type=Order)
    place = f"rank {MPI.COMM_WORLD.Get_rank()} on {socket.gethostname()}"
    records: list[Record] = []
    tasks: dict[str, list[str]] = {}
    failure = None
    try:
        results = ResultsDirectory(Path(asked.results))
        for made in run_orders([asked], results, rerun="all", timeout_s=timeout_s):
            records += made
            names = [record.id for record in made]
            tasks |= {spec.id: names for spec in asked.specs if results.tasks_of(spec.id) == names}
    except Exception as error:  # the others go on, and the records of its runs say why it did not
        failure = f"{place}: {first_line(error)}"
    return msgspec.json.encode(
        Handed(place=place, records=[encode(one) for one in records], tasks=tasks, failure=failure)
    )


def _gathered(results: ResultsDirectory, order: Order, done: Handed) -> Iterator[list[Record]]:
    """Writes what is not here yet, and yields the records of each run. A run that the rank did not make has
    failed, also where an earlier record of it is here."""
    records = [decode(text) for text in done.records]
    for record in records:
        path = results.record_path(record.id)
        if not path.exists() or decode(path.read_bytes()) != record:
            results.write(record)
    for group, names in done.tasks.items():
        results.write_tasks(group, names)
    ids = {record.id for record in records} | set(done.tasks)
    for spec in order.specs:
        found = records_of(results, spec) if spec.id in ids else []
        if not found:
            message = done.failure or f"{done.place} left no record of this run"
            found = [failed_record(spec, Environment(), Failure(failure_class="crash", message=message))]
            results.write(found[0])
        yield found
