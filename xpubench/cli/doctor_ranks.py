"""`xpubench doctor --distributed`, under mpirun: the ranks, and how fast they sum."""

import argparse
import json
import os
from datetime import timedelta
from typing import Any

import msgspec

from xpubench.cli.tables import print_table
from xpubench.distributed.launch import Launch, launch_of, silence
from xpubench.errors import UserError

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
    autotp.stop()
    return found


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
