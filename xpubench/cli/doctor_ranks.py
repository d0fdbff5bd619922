"""`xpubench doctor --distributed`, under mpirun: what the ranks are, and how fast they sum."""

import argparse
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from xpubench.distributed.launch import launch_of, silence
from xpubench.errors import UserError

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
        # The launcher would end rank 0 with this one, before that has spoken.
        if launch.rank != 0:
            return 0
        raise
    if launch.rank == 0:
        _show(found, as_json=args.json)
    return 0


def _found(args: argparse.Namespace, launch: Any) -> dict[str, Any]:
    import msgspec

    from xpubench.distributed import autotp, rendezvous
    from xpubench.distributed.all_reduce import measure_all_reduce
    from xpubench.measure.device import available_devices, check_device, device_name, synchronizer

    job: RankGroup = rendezvous.join(launch, TIMEOUT)
    device = job.gather(args.device or available_devices()[0])[0]

    def index_of_device() -> int:
        check_device(device)
        autotp.import_deepspeed(device)
        autotp.check_backend(device)
        return autotp.device_index(job, device)

    index = job.agreed(index_of_device)
    autotp.start(job, device)
    own = msgspec.to_builtins(job.places[job.rank]) | {
        "device": device if device == "cpu" else f"{device}:{index}",
        "device_name": device_name(device),
        "affinity": sorted(os.sched_getaffinity(0)) if device == "cpu" else None,
    }
    found = {
        "launcher": launch.launcher,
        "backend": autotp.BACKENDS[device],
        "ranks": job.gather(own),
        "all_reduce": msgspec.to_builtins(measure_all_reduce(device, synchronizer(device), job.gather)),
    }
    autotp.stop()
    return found


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        import json

        # One write, or a launcher that prefixes lines splits it.
        print(f"{json.dumps(found)}\n", end="", flush=True)
        return
    from xpubench.cli.tables import plain_console, plain_table

    console = plain_console()
    ranks = plain_table("rank", "host", "device", "")
    for one in ranks.columns[1:]:
        one.justify = "left"
    for rank in found["ranks"]:
        cores = f", cores {rank['affinity']}" if rank["affinity"] else ""
        ranks.add_row(str(rank["rank"]), rank["host"], rank["device"], rank["device_name"] + cores)
    console.print(ranks)
    sums = plain_table("all-reduce, KiB", "latency, us", "bus, GB/s")
    for line in found["all_reduce"]:
        sums.add_row(
            f"{line['size_bytes'] // 1024}", f"{line['latency_us']:.1f}", f"{line['bus_gb_per_s']:.3f}"
        )
    console.print(sums)
    console.print(f"{len(found['ranks'])} ranks of {found['launcher']}, {found['backend']}")
