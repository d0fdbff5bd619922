"""Measure the latency of each token of one model on one device, and check the tokens."""

import argparse
import os
import signal
import sys
from pathlib import Path

from xpubench.cli.options import (
    add_model_flags,
    add_protocol_flags,
    add_runtime_flags,
    add_workload_flags,
    specs_from,
)
from xpubench.errors import UserError


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    modes = parser.add_argument_group("what to do")
    modes.add_argument(
        "--benchmark", action="store_true", help="measure the latency (also without this flag)"
    )
    add_model_flags(parser)
    add_runtime_flags(parser)
    add_workload_flags(parser)
    add_protocol_flags(parser)
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
    """Runs the specs; 0 when all went well, 1 when one failed."""
    if not args.profile_name.replace("-", "").replace("_", "").isalnum():
        raise UserError(
            f"--profile_name {args.profile_name!r} is part of a file's name; use letters, digits, - and _"
        )
    # The seconds that torch takes to import are not spent on a wrong flag.
    specs_from(args, args.device or "cpu")
    _quiet()
    from xpubench.measure.device import available_devices

    from xpubench.benchmark import run as run_benchmark
    from xpubench.record import ResultsDirectory, encode
    from xpubench.report.console import Reporter

    reporter = Reporter()
    device = args.device
    if device is None:
        device = available_devices()[0]
        reporter.say(f"no --device given: using {device}")
    specs = specs_from(args, device)
    results = ResultsDirectory(args.results_dir)
    profiled = args.profile or os.environ.get("PROFILE", "0").lower() not in ("", "0", "off", "false")
    signal.signal(signal.SIGTERM, _interrupt)
    records = []
    with reporter:
        for record in run_benchmark(
            specs,
            results,
            reporter,
            reference=args.reference,
            profile_name=args.profile_name if profiled else None,
        ):
            records.append(record)
            if args.json:
                sys.stdout.write(encode(record).decode() + "\n")
                sys.stdout.flush()
            else:
                reporter.show(
                    record,
                    token_latency=args.token_latency,
                    memory=args.print_memory,
                    directory=results.path,
                )
    reporter.end(records)
    return 0 if all(record.status == "ok" for record in records) else 1


def _quiet() -> None:
    """Keeps the libraries' own progress bars and advice out of the output."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
