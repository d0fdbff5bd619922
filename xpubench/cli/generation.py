"""Measure the latency of each token of one model on one device, and check the tokens."""

import argparse
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import msgspec

from xpubench.cli import options
from xpubench.cli.options import named_directory, runtime_names
from xpubench.errors import UserError
from xpubench.process.output import own_stdout
from xpubench.process.signals import exit_code
from xpubench.record import Record, encode
from xpubench.results import WriteError
from xpubench.run.order import Order, Spec, perform, set_variables
from xpubench.runtimes import registry

if TYPE_CHECKING:
    from xpubench.cli.console import Reporter


def add_flags(parser: argparse.ArgumentParser, *, ranks: bool = False) -> None:
    """Adds the command's flags; with `ranks` also those of the runtimes that share a model among ranks."""
    add = parser.add_argument_group("mode").add_argument
    add("--benchmark", action="store_true", help="measure the latency (also without this flag)")
    add("--accuracy-only", action="store_true", help="run lm-eval tasks instead")
    options.add_model_flags(parser, ranks=ranks)
    options.add_quantization_flags(parser)
    options.add_workload_flags(parser)
    add = parser.add_argument_group("output").add_argument
    note = (
        "report how far tokens and logits are from this record's, or from the CPU's in float32; with "
        "--until-decided an accuracy record"
    )
    add("--reference", metavar="RECORD|cpu-float32", help=note)
    note = "with --reference: a larger mean KL divergence is no result (default: by the precisions)"
    add("--max-kl", type=float, metavar="NATS", help=note)
    note = "with --reference: a smaller share of equal tokens is no result (default: by the precisions)"
    add("--min-agreement", type=float, metavar="SHARE", help=note)
    add(
        "--results-dir", type=named_directory, default=Path("results"), metavar="DIR", help="default: results"
    )
    add("--json", action="store_true", help="the record on standard output, one line for each run")
    add("--token-latency", action="store_true", help="list each token's time of the median iteration")
    add("--print-memory", action="store_true", help="list the plan's memory beside the peaks")
    note = "write a Chrome trace and an operator table of one more generation (PROFILE=1 does it too)"
    add("--profile", action="store_true", help=note)
    note = "part of their names (default: profile)"
    add("--profile_name", default="profile", metavar="NAME", help=note)
    note = "say where the tokens' time goes, from at most 3 more generations after the timed ones"
    add("--explain", action="store_true", help=note)
    note = "measure the next token behind contexts of so many tokens"
    add("--depths", type=int, nargs="+", default=[], metavar="N", help=note)


def run(args: argparse.Namespace) -> int:
    """Runs the specs and returns the exit code: 0 when all went well, 1 when one failed, 128 plus the
    signal's number when a signal ended it."""
    names = runtime_names(args)
    if len(names) > 1:
        from xpubench.cli.side_by_side import run as run_side_by_side

        return run_side_by_side(args, names)
    # A wrong flag is told before torch, whose import takes seconds, looks for devices.
    order = order_for(args, names[0], args.device or "cpu")
    set_variables(order)
    with own_stdout() as out:
        from xpubench.cli.console import Reporter

        reporter = Reporter(out)
        if args.device is None:
            order = order_for(args, names[0], first_device(names[0]))
            reporter.say(f"no --device given: using {order.specs[0].subject.device}")
        return show(args, order, reporter, out)


def order_for(args: argparse.Namespace, runtime: str, device: str) -> Order:
    """The order that the flags give for one of the runtimes that they name, on that device. Where they name
    several, flags of the others are ignored. UserError where flags contradict each other."""
    if len(runtime_names(args)) == 1 and args.rounds is not None:
        raise UserError(
            "--rounds repeats several runtimes in turns: name them, such as --runtime "
            f"{','.join(registry.listed()[:2])}; xpubench suite --rounds repeats one"
        )
    if not args.profile_name.replace("-", "").replace("_", "").isalnum():
        raise UserError(
            f"--profile_name {args.profile_name!r} is part of a file's name; use letters, digits, - and _"
        )
    if args.reference is None and not args.max_kl is args.min_agreement is None:
        raise UserError("--max-kl and --min-agreement are limits for --reference; give that too")
    if not 0 <= (args.min_agreement or 0) <= 1 or not (args.max_kl or 0) >= 0:
        raise UserError("--min-agreement is a share from 0 to 1, and --max-kl at least 0 nats")
    profiled = args.profile or os.environ.get("PROFILE", "").lower() in ("1", "y", "yes", "on", "true")
    return Order(
        specs=_specs(args, runtime, device),
        results=str(args.results_dir),
        reference=args.reference,
        max_kl=args.max_kl,
        min_agreement=args.min_agreement,
        profile_name=args.profile_name if profiled else None,
        explain=args.explain,
        depths=_depths(args),
        save_model=str(args.output_dir or Path()) if args.save_model else None,
    )


def _depths(args: argparse.Namespace) -> list[int]:
    """The depths in rising order; UserError for those that no context has."""
    if args.accuracy_only and (args.depths or args.explain):
        raise UserError("--explain and --depths are for latency runs; leave them out here")
    if args.depths and min(args.depths) < 0:
        raise UserError(f"--depths are numbers of tokens from 0 up, not {min(args.depths)}")
    return sorted(set(args.depths))


def _specs(args: argparse.Namespace, runtime: str, device: str) -> list[Spec]:
    own = argparse.Namespace(**vars(args) | {"runtime": runtime})
    if not args.accuracy_only:
        return list(options.specs_from(own, device, beside=runtime_names(args)))
    if args.reference is not None and not args.until_decided:
        raise UserError(
            "--reference is for latency runs, and for accuracy runs with --until-decided; xpubench compare "
            "compares two accuracy records"
        )
    if args.until_decided and args.reference is None:
        raise UserError("--until-decided needs --reference RECORD, an accuracy record of the same task")
    if not args.max_kl is args.min_agreement is None:
        raise UserError("--max-kl and --min-agreement are for latency runs; leave them out here")
    from xpubench.accuracy.tasks import SMOKE, check_installed, with_data

    specs = options.accuracy_specs_from(own, device)
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
def device_of_worker(runtime: str, python: str | None = None) -> str:
    """The device for a worker of an interpreter, by default this one, where no flag names one. A stack that
    is missing does not stop the other runtimes: the records of its own runs say what it lacks."""
    from xpubench.measure.device import available_devices
    from xpubench.run.environments import first_device_of

    if python not in (None, sys.executable) and (found := first_device_of(python, runtime)):
        return found
    try:
        return first_device(runtime)
    except UserError:
        return available_devices()[0]


def show(args: argparse.Namespace, order: Order, reporter: "Reporter", out: TextIO) -> int:
    """Runs the order in this process and shows each record, also one that cannot be written; the exit
    code."""
    records = []

    def show_one(record: Record, directory: Path | None) -> None:
        if args.json:
            print(encode(record).decode(), file=out, flush=True)
            return
        reporter.show(record, token_latency=args.token_latency, memory=args.print_memory, directory=directory)

    with reporter:
        try:
            for record in perform(order, reporter):
                records.append(record)
                show_one(record, args.results_dir)
        except WriteError as error:
            if error.record is not None:
                show_one(error.record, None)
            raise
    if not args.json:
        reporter.show_batches(records)
    reporter.end(records)
    if any(record.status == "interrupted" for record in records):
        return exit_code()
    return 0 if all(record.status == "ok" for record in records) else 1
