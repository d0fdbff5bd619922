"""An order for several ranks: rank 0 runs it, and the others receive it as data and follow."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from xpubench.distributed import autotp, rendezvous
from xpubench.distributed.launch import Launch
from xpubench.distributed.rendezvous import RankGroup
from xpubench.errors import RunFailure, UserError
from xpubench.failures import failed_record
from xpubench.measure.environment import capture
from xpubench.process import signals
from xpubench.record import Failure, encode
from xpubench.results import ResultsDirectory
from xpubench.run.order import RANKS_TIMEOUT_S, Order, set_variables
from xpubench.runtimes import registry
from xpubench.runtimes.base import Device
from xpubench.spec import Subject

T = TypeVar("T")


def take_part(launch: Launch | None, order: Order | None, work: Callable[[Order], T]) -> T | None:
    """Makes this process one of the ranks and carries out rank 0's order, which is None on the others.
    Returns what `work` returns on rank 0. UserError on every rank for what cannot be done as asked."""
    if launch is None:
        raise UserError("no launcher started this worker as one of several ranks")
    timeout_s = RANKS_TIMEOUT_S if order is None else order.ranks_timeout_s
    return carry_out(rendezvous.join(launch, timedelta(seconds=timeout_s)), order, work)


def carry_out(group: RankGroup, order: Order | None, work: Callable[[Order], T]) -> T | None:
    """Carries out rank 0's order on all ranks; without one, all leave."""
    shared = msgspec.json.decode(group.share(msgspec.json.encode(order)), type=Order | None)
    if shared is None:
        return None
    if shared.ranks != group.size:
        raise UserError(f"the order is for {shared.ranks} ranks, and {group.size} were started")
    # Every rank imports the stack after its variables are set: the importing of transformers can import
    # others.
    set_variables(shared)
    group.timeout = timedelta(seconds=shared.ranks_timeout_s)
    subject = shared.specs[0].subject
    group.agreed(lambda: _device(subject))
    autotp.check_devices(group, subject.device)
    group.watch(group.agreed(lambda: _drafts(shared) if group.rank == 0 else []), shared.results)
    if group.rank != 0:
        # Rank 0 handles an interruption.
        signals.ignore()
        from xpubench.distributed.runtime import follow

        follow(group)
        _leave(group)
        return None
    try:
        with signals.calling_first(group.end_if_failed):
            result = work(shared)
    except (UserError, RunFailure, KeyboardInterrupt, BrokenPipeError):
        _leave(group)
        raise
    _leave(group)
    return result


def _device(subject: Subject) -> Device:
    """The subject's device; UserError where this rank does not have it."""
    loader = registry.loader(subject.runtime)
    # The environment is set before the device's libraries read it.
    loader.set_up()
    return loader.device(subject)


def _drafts(order: Order) -> list[bytes]:
    """The encoded records of the runs; if a rank is killed, the watchdog writes that of the run at work."""
    ResultsDirectory(Path(order.results))
    unknown = Failure(failure_class="crash", message="")
    environment = capture(_device(order.specs[0].subject).facts(), registry.packages())
    return [encode(failed_record(spec, environment, unknown)) for spec in order.specs]


def _leave(group: RankGroup) -> None:
    if group.rank == 0:
        group.send(("leave", (), {}))
    autotp.stop(group)
    group.leave()
