"""`xpubench doctor --distributed`, under mpirun: the ranks, and how fast they sum."""

import argparse
import json
import os
import sys
from datetime import timedelta
from threading import Timer
from typing import TYPE_CHECKING, Any

import msgspec

from xpubench.cli.tables import print_table
from xpubench.distributed.launch import Launch, launch_of, silence
from xpubench.errors import UserError
from xpubench.record import Failure

if TYPE_CHECKING:
    from xpubench.distributed.rendezvous import RankGroup

TIMEOUT = timedelta(seconds=120)


def run(args: argparse.Namespace) -> int:
    """Rank 0 prints the ranks and the table of sums; UserError where they cannot work together."""
    launch = launch_of(os.environ)
    if launch is None:
        raise UserError("no launcher started several ranks; type mpirun -np 2 xpubench doctor --distributed")
    if launch.rank != 0:
        silence()
    try:
        found = _found(args, launch)
    except UserError:
        # An exit code of this rank would make the launcher end rank 0 before it has printed the error.
        if launch.rank != 0:
            return 0
        raise
    if launch.rank == 0:
        _show(found, as_json=args.json)
    return 0


def _found(args: argparse.Namespace, launch: Launch) -> dict[str, Any]:
    from xpubench.distributed import autotp, rendezvous
    from xpubench.distributed.all_reduce import measure_all_reduce
    from xpubench.measure.device import TorchDevice, available_devices, synchronizer

    group = rendezvous.join(launch, TIMEOUT)
    device = group.gather(args.device or available_devices()[0])[0]
    group.agreed(lambda: TorchDevice(device))
    index = autotp.check_devices(group, device)
    # Not all collectives time out by themselves.
    timer = Timer(TIMEOUT.total_seconds(), _give_up, [group])
    timer.daemon = True
    if group.rank == 0:
        timer.start()
    autotp.start(group, device)
    own = msgspec.to_builtins(group.places[group.rank]) | {
        "device": device if device == "cpu" else f"{device}:{index}",
        "device_name": TorchDevice(device).facts().name,
        "affinity": sorted(os.sched_getaffinity(0)) if device == "cpu" else None,
    }
    found = {
        "launcher": launch.launcher,
        "backend": autotp.BACKENDS[device],
        "ranks": group.gather(own),
        "all_reduce": msgspec.to_builtins(measure_all_reduce(device, synchronizer(device), group.gather)),
    }
    autotp.stop(group)
    timer.cancel()
    return found


def _give_up(group: "RankGroup") -> None:
    message = f"the ranks did not sum their tensors within {TIMEOUT.total_seconds():g} s"
    print(f"error: {message}", file=sys.stderr, flush=True)
    group.fail(Failure(failure_class="timeout", message=message))


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        # A launcher that prefixes lines would split several writes.
        print(f"{json.dumps(found)}\n", end="", flush=True)
        return
    ranks = []
    for one in found["ranks"]:
        cores = f", cores {one['affinity']}" if one["affinity"] else ""
        ranks.append((str(one["rank"]), one["host"], one["device"], one["device_name"] + cores))
    sums = [
        (f"{one['size_bytes'] // 1024}", f"{one['latency_us']:.1f}", f"{one['bus_gb_per_s']:.3f}")
        for one in found["all_reduce"]
    ]
    print_table(("rank", "host", "device", ""), ranks, left=4)
    print_table(("all-reduce, KiB", "latency, us", "bus, GB/s"), sums)
    print(f"{len(ranks)} ranks of {found['launcher']}, {found['backend']}")
