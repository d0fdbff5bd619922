"""Measure the latency of each token of one model on one device, and check the tokens."""

import argparse
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from xpubench.cli.options import (
    accuracy_specs_from,
    add_accuracy_flags,
    add_model_flags,
    add_protocol_flags,
    add_quantization_flags,
    add_runtime_flags,
    add_workload_flags,
    runtime_names,
    specs_from,
)
from xpubench.errors import UserError
from xpubench.process.output import own_stdout, quiet
from xpubench.process.signals import exit_code
from xpubench.run.order import Order, Spec, perform, set_variables
from xpubench.runtimes import registry

if TYPE_CHECKING:
    from xpubench.cli.console import Reporter


def add_flags(parser: argparse.ArgumentParser, *, ranks: bool = False) -> None:
    """The command's flags; with `ranks` also those of the runtimes that share a model among ranks."""
    modes = parser.add_argument_group("what to do")
    modes.add_argument(
        "--benchmark", action="store_true", help="measure the latency (also without this flag)"
    )
    modes.add_argument("--accuracy-only", action="store_true", help="run lm-eval tasks instead")
    add_model_flags(parser)
    add_runtime_flags(parser, ranks=ranks)
    add_quantization_flags(parser)
    add_workload_flags(parser)
    add_protocol_flags(parser)
    add_accuracy_flags(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--reference",
        metavar="RECORD|cpu-float32",
        help="report how far tokens and logits are from this record's, or from the CPU's in float32",
    )
    group.add_argument(
        "--results-dir", type=Path, default=Path("results"), metavar="DIR", help="default: results"
    )
    group.add_argument("--json", action="store_true", help="the record on standard output, one line a run")
    group.add_argument(
        "--token-latency", action="store_true", help="list each token's time of the median iteration"
    )
    group.add_argument("--print-memory", action="store_true", help="list the plan's memory beside the peaks")
    group.add_argument(
        "--profile",
        action="store_true",
        help="write a Chrome trace and an operator table of one more generation (PROFILE=1 does it too)",
    )
    group.add_argument(
        "--profile_name", default="profile", metavar="NAME", help="part of their names (default: profile)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the specs; 0 when all went well, 1 when one failed, 128 and its number when a signal ended it."""
    names = runtime_names(args)
    if len(names) > 1:
        from xpubench.cli.side_by_side import run as run_side_by_side

        return run_side_by_side(args, names)
    # The seconds that torch takes to import are not spent on a wrong flag.
    order = order_for(args, names[0], args.device or "cpu")
    set_variables(order)
    quiet()
    with own_stdout() as out:
        from xpubench.cli.console import Reporter

        reporter = Reporter(out)
        if args.device is None:
            device = first_device(names[0])
            reporter.say(f"no --device given: using {device}")
            order = order_for(args, names[0], device)
        return show(args, order, reporter, out)


def order_for(args: argparse.Namespace, runtime: str, device: str) -> Order:
    """What the flags ask of that runtime, one of those that they name, on that device. UserError where they
    contradict; flags of other runtimes are skipped where they name several."""
    names = runtime_names(args)
    if len(names) == 1 and args.rounds is not None:
        raise UserError(
            "--rounds repeats several runtimes in turns: name them, such as --runtime "
            f"{','.join(registry.listed()[:2])}; xpubench suite --rounds repeats one"
        )
    if not args.profile_name.replace("-", "").replace("_", "").isalnum():
        raise UserError(
            f"--profile_name {args.profile_name!r} is part of a file's name; use letters, digits, - and _"
        )
    profiled = args.profile or os.environ.get("PROFILE", "").lower() in ("1", "y", "yes", "on", "true")
    return Order(
        specs=specs_for(args, runtime, device),
        results=str(args.results_dir),
        reference=args.reference,
        profile_name=args.profile_name if profiled else None,
        save_model=str(args.output_dir) if args.save_model else None,
    )


def specs_for(args: argparse.Namespace, runtime: str, device: str) -> list[Spec]:
    """The specs that the flags ask of that runtime, one of those that they name, on that device."""
    names = runtime_names(args)
    own = argparse.Namespace(**vars(args) | {"runtime": runtime})
    if not args.accuracy_only:
        return list(specs_from(own, device, beside=names))
    if args.reference is not None:
        raise UserError(
            "--reference is of latency runs; xpubench compare holds two accuracy records together"
        )
    from xpubench.accuracy.tasks import SMOKE, check_installed, with_data

    specs = accuracy_specs_from(own, device)
    check_installed()
    if args.acc_data is not None and all(spec.task.name == SMOKE for spec in specs):
        raise UserError(
            f"{SMOKE} has its own passages; give --acc-data to lambada_standard or lambada_openai"
        )
    return [msgspec.structs.replace(spec, task=with_data(spec.task)) for spec in specs]


def first_device(runtime: str) -> str:
    """The preferred device of those that the runtime finds here; UserError where it cannot be set up."""
    loader = registry.loader(runtime)
    loader.set_up()
    return loader.first_device()


@cache
def device_of_worker(runtime: str) -> str:
    """The device of a worker where none was named. What a runtime lacks is told by the records of its runs,
    and stops no other."""
    from xpubench.measure.device import available_devices

    try:
        return first_device(runtime)
    except UserError:
        return available_devices()[0]


def show(args: argparse.Namespace, order: Order, reporter: "Reporter", out: TextIO) -> int:
    """Runs the order in this process and shows each record; the exit code."""
    from xpubench.record import encode

    records = []
    with reporter:
        for record in perform(order, reporter):
            records.append(record)
            if args.json:
                print(encode(record).decode(), file=out, flush=True)
            else:
                reporter.show(
                    record,
                    token_latency=args.token_latency,
                    memory=args.print_memory,
                    directory=args.results_dir,
                )
    reporter.end(records)
    if any(record.status == "interrupted" for record in records):
        return exit_code()
    return 0 if all(record.status == "ok" for record in records) else 1
