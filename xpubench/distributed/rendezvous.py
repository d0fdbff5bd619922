"""The ranks that share one model: how they meet, exchange data without collectives, and end together."""

import atexit
import os
import pickle
import re
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import msgspec
from torch.distributed import PrefixStore, Store, TCPStore

from xpubench.distributed.launch import INSTALL, Launch
from xpubench.distributed.watchdog import WatchdogConnection, start_watchdog
from xpubench.errors import RunFailure, UserError
from xpubench.failures import log_tail
from xpubench.process import signals
from xpubench.record import Failure

T = TypeVar("T")
# A follower waits for rank 0's next command until the end of rank 0, which closes the store.
FOREVER = timedelta(days=365)
MEET = timedelta(minutes=5)
# The time that a rank with an error waits for the same error on the others before it ends the job. A rank
# that still imports the model's module takes some seconds to get there on a busy host or a shared disk.
GRACE_S = 20
LOOPBACK = "127.0.0.1"
MPICH_SHM = re.compile(r"/dev/shm/mpich_shm_\w+")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a rank runs."""

    rank: int
    host: str
    pid: int
    local_rank: int


class RankGroup:
    """This process among the ranks. Every rank makes the same calls of `gather`, `share` and `agree`."""

    def __init__(self, launch: Launch, timeout: timedelta) -> None:
        """Meets the other ranks. UserError, on every rank that notices, where they cannot meet."""
        self._mpi = _mpi(launch) if launch.with_mpi else None
        if self._mpi is not None:
            self.rank, self.size = self._mpi.Get_rank(), self._mpi.Get_size()
        else:
            self.rank, self.size = launch.rank, launch.size or 1
        self.timeout = timeout
        self._turns = count()
        self._watchdog: WatchdogConnection | None = None
        # On rank 0: the failure after which the other ranks cannot go on. The job ends with it as soon as the
        # run's record has what was measured before.
        self.lost: Failure | None = None
        sys.excepthook = self._end_in_error
        threading.excepthook = lambda caught: self._end_in_error(
            caught.exc_type, caught.exc_value or SystemExit(), caught.exc_traceback
        )
        self._store, self._address = self._meet()
        hosts = self.gather(socket.gethostname())
        counted = hosts[: self.rank].count(hosts[self.rank])
        self.local_rank = counted if launch.local_rank is None else launch.local_rank
        place = Place(rank=self.rank, host=hosts[self.rank], pid=os.getpid(), local_rank=self.local_rank)
        self.places: list[Place] = self.gather(place)
        # DeepSpeed and the communication libraries read these variables.
        os.environ.update(
            RANK=str(self.rank),
            WORLD_SIZE=str(self.size),
            LOCAL_RANK=str(self.local_rank),
            MASTER_ADDR=self._address,
        )
        if self._mpi is not None:
            os.environ["MASTER_PORT"] = str(self._store.port)

    @property
    def one_host(self) -> bool:
        return len({place.host for place in self.places}) == 1

    def process_group_store(self) -> Store:
        """A store in which a process group can meet."""
        return PrefixStore("group", self._store)

    def gather(self, value: Any) -> list[Any]:
        """Each rank's value, by rank, on every rank."""
        turn = next(self._turns)
        self._store.set(f"{turn}/{self.rank}", pickle.dumps(value))
        return [pickle.loads(self._get(f"{turn}/{rank}", self.timeout)) for rank in range(self.size)]

    def share(self, data: bytes, timeout: timedelta | None = None) -> bytes:
        """Rank 0's data, on every rank; `timeout` is by default the group's."""
        turn = next(self._turns)
        if self.rank == 0:
            self._store.set(f"{turn}/0", data)
            return data
        return self._get(f"{turn}/0", timeout or self.timeout)

    def agree(self, problem: str | None) -> None:
        """UserError on every rank when one of them has a problem: the first one's."""
        found = [(rank, one) for rank, one in enumerate(self.gather(problem)) if one is not None]
        if not found:
            return
        rank, text = found[0]
        everyone = len({one for _, one in found}) == 1 and len(found) == self.size
        where = "" if everyone or rank == 0 else f"rank {rank} on {self.places[rank].host}: "
        raise UserError(where + text)

    def agreed(self, work: Callable[[], T]) -> T:
        """The result of work that every rank does; UserError on every rank when it fails on one."""
        problem = None
        try:
            result = work()
        except (UserError, RunFailure) as error:
            problem = str(error)
        self.agree(problem)
        return result

    def send(self, command: Any) -> None:
        """Sends rank 0's next command to all others. Ends a job that is lost."""
        if self.lost is not None:
            self.fail(self.lost)
        self.share(pickle.dumps(command))

    def receive(self) -> Any:
        """The next command, on a rank other than 0."""
        return pickle.loads(self.share(b"", FOREVER))

    def all_failed(self, error: BaseException) -> bool:
        """For a rank whose work has failed: whether the work of every other rank fails too within `GRACE_S`
        seconds. If not, some rank waits in a collective for ever, and the job must be ended."""
        turn = next(self._turns)
        self._store.set(f"failed/{turn}/{self.rank}", type(error).__name__)
        until = monotonic() + GRACE_S
        # Polled, because the store's own wait writes warnings when it times out.
        while not self._store.check([f"failed/{turn}/{rank}" for rank in range(self.size)]):
            if monotonic() > until:
                return False
            sleep(0.05)
        return True

    def skip_turn(self) -> None:
        """For a rank whose work succeeded: counts the turn that `all_failed` counts on the others."""
        next(self._turns)

    def watch(self, drafts: list[bytes], results: str) -> None:
        """Starts the watchdog: if a rank is killed, it writes the draft of the run at work to the directory
        `results` as a failure. Only rank 0's drafts count."""
        port = start_watchdog(self._address, self.size, drafts, results) if self.rank == 0 else None
        port = self.gather(port)[0]
        self._watchdog = WatchdogConnection(self._address, port, msgspec.to_builtins(self.places[self.rank]))

    def set_at_work(self, run_id: str | None) -> None:
        """On rank 0: tells the watchdog which run is at work, None where none is any more. Ends a job that is
        lost, as the run that was at work has its record by now."""
        if self.lost is not None:
            self.fail(self.lost)
        if self._watchdog is not None:
            self._watchdog.say({"at_work": run_id})

    @contextmanager
    def deadline(self, *, hangs: bool) -> Iterator[None]:
        """Has the watchdog kill the job unless the block ends within the timeout. It serves collectives that
        neither time out themselves nor hear signals, where the block has such ones (`hangs`)."""
        if not hangs or self._watchdog is None or self.rank != 0:
            yield
            return
        self._watchdog.say({"within_s": self.timeout.total_seconds()})
        try:
            yield
        finally:
            self._watchdog.say({"within_s": None})

    def fail(self, failure: Failure) -> NoReturn:
        """Has the failure recorded as this rank's and ends all ranks."""
        if self._watchdog is not None:
            self._watchdog.report(msgspec.to_builtins(failure))
        self._end(signals.exit_code() if failure.failure_class == "interrupted" else 1)

    def end_if_failed(self) -> None:
        """Ends all ranks where the watchdog has recorded a failure. For a rank that gets a signal: a launcher
        signals the other ranks when one has died, and rank 0 must not call that an interruption."""
        if self._watchdog is not None and not self._watchdog.is_watching():
            self._end()

    def _end(self, code: int = 1) -> NoReturn:
        if self._mpi is not None:
            self._mpi.Abort(code)
        os._exit(code)

    def leave(self) -> None:
        """Signs off from the watchdog: nothing that happens afterwards is a failure of the job."""
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None

    def _end_in_error(
        self, kind: type[BaseException], error: BaseException, where: TracebackType | None
    ) -> None:
        sys.__excepthook__(kind, error, where)
        tail = log_tail("".join(traceback.format_exception(kind, error, where)))
        self.fail(Failure(failure_class="crash", message=f"{kind.__name__}: {error}", log_tail=tail))

    def _meet(self) -> tuple[Store, str]:
        """The store of this job, on rank 0's host, and that host's address."""
        if self._mpi is None:
            address, port = os.environ.get("MASTER_ADDR"), _master_port()
            if address is None or port is None:
                raise UserError(
                    "RANK is set, but MASTER_ADDR and MASTER_PORT are not both: unset RANK and start the "
                    "ranks with mpirun, or start them with torchrun, which sets all three"
                )
            mine = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
            return PrefixStore("xpubench", self._tcp_store(address, port, mine)), address
        hosts = self._mpi.allgather(socket.gethostname())
        _unlink_shared_memory()
        address = os.environ.get("MASTER_ADDR") or (LOOPBACK if len(set(hosts)) == 1 else hosts[0])
        store, problem = None, None
        if self.rank == 0:
            try:
                store = self._tcp_store(address, _master_port() or 0, True)
            except UserError as error:
                problem = str(error)
        address, port, problem = self._mpi.bcast((address, store.port if store else None, problem))
        if problem is not None:
            raise UserError(problem)
        return store or self._tcp_store(address, port, False), address

    def _tcp_store(self, address: str, port: int, mine: bool) -> TCPStore:
        try:
            return TCPStore(address, port, self.size, mine, timeout=MEET, wait_for_workers=False)
        except RuntimeError as error:
            if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
                raise UserError(
                    f"port {port} of MASTER_PORT is taken; unset MASTER_PORT to have a free one chosen"
                ) from error
            raise UserError(
                f"the ranks cannot meet at {address}:{port}; set MASTER_ADDR to an address of rank 0's host"
            ) from error

    def _get(self, key: str, timeout: timedelta) -> bytes:
        self._store.wait([key], timeout)
        value: bytes = self._store.get(key)
        return value


def _mpi(launch: Launch) -> Any:
    """MPI's communicator of all ranks; UserError where MPI is missing or not the launcher's."""
    try:
        import mpi4py

        mpi4py.rc.initialize = False
        from mpi4py import MPI
    except ImportError as error:
        raise UserError(f"mpi4py is not installed; {INSTALL}") from error
    except RuntimeError as error:
        raise UserError(f"mpi4py finds no MPI library; {INSTALL}") from error
    library = MPI.Get_library_version().splitlines()[0].strip(" \0")
    # Initializing another library under Open MPI ends the process.
    if launch.launcher == "Open MPI" and not library.startswith("Open MPI"):
        raise UserError(
            f"mpirun of Open MPI started the ranks, but mpi4py takes {library}; name Open MPI's library with "
            "MPI4PY_LIBMPI=libmpi.so.40, or use the mpirun of this environment"
        )
    MPI.Init_thread()
    atexit.register(MPI.Finalize)
    world = MPI.COMM_WORLD
    if launch.size is not None and world.Get_size() != launch.size:
        raise UserError(
            f"mpirun of {launch.launcher} started {launch.size} ranks, but mpi4py's MPI ({library}) sees "
            f"{world.Get_size()}: use the mpirun of that MPI"
        )
    return world


def _master_port() -> int | None:
    """MASTER_PORT, None where it is not set; UserError where it is no port."""
    text = os.environ.get("MASTER_PORT")
    if not text:
        return None
    if not text.isdecimal() or int(text) > 65535:
        raise UserError(
            f"MASTER_PORT is {text!r}, which is no port; unset it, or set a number from 0 to 65535"
        )
    return int(text)


def _unlink_shared_memory() -> None:
    """Removes the files of MPICH's shared memory, which all ranks have open by now. The memory is freed when
    the job ends in any way, whereas MPICH leaves the files of a killed job behind."""
    for path in MPICH_SHM.findall(Path("/proc/self/maps").read_text()):
        Path(path).unlink(missing_ok=True)


_current: RankGroup | None = None


def join(launch: Launch, timeout: timedelta) -> RankGroup:
    """Makes this process one of its job's ranks; called once in a process."""
    global _current
    _current = RankGroup(launch, timeout)
    return _current


def current() -> RankGroup:
    """The group that this process is a rank of; UserError where it is in none."""
    if _current is None:
        raise UserError(
            "this process was not started as one of several ranks; type "
            "mpirun -np 2 python -u run_generation_with_deepspeed.py ..."
        )
    return _current
