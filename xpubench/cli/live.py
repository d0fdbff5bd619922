"""`xpubench compare --live`: two command lines judged by blocks, until a verdict or the end of the budget."""

import argparse
import random
import sys
from pathlib import Path

import msgspec

from xpubench.cli import generation
from xpubench.cli.main import Parser
from xpubench.cli.options import named_directory, runtime_names
from xpubench.compare.answers import with_answers
from xpubench.compare.live import compare_blocks
from xpubench.compare.runs import Comparisons, Rules, verdict_exit_code
from xpubench.errors import UserError
from xpubench.progress import log_line
from xpubench.record import Record
from xpubench.results import ROUND, rounds_of
from xpubench.run.environments import check_runs_workers
from xpubench.run.live import WARMUP, Side, run_block
from xpubench.run.suite import words
from xpubench.spec import RunSpec

DEFAULT_BUDGET = 20


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a live comparison."""
    add = parser.add_argument_group("live").add_argument
    note = "run BASE and NEW now, in turn: flags of `xpubench generate` in quotes; NEW is BASE where it lacks"
    add("--live", action="store_true", help=note)
    note = f"the most blocks, each of two fresh processes (default: {DEFAULT_BUDGET})"
    add("--budget", type=int, default=DEFAULT_BUDGET, metavar="N", help=note)
    for side, which in (("a", "BASE"), ("b", "NEW")):
        note = f"variables of the environment of {which}"
        add(f"--{side}-env", nargs="+", default=[], metavar="NAME=VALUE", help=note)
        add(f"--{side}-python", default=sys.executable, metavar="FILE", help=f"the interpreter of {which}")
    note = "where the records of the blocks stay (default: results-live)"
    add("--results-dir", type=named_directory, default=Path("results-live"), metavar="DIR", help=note)


def flags_given(args: argparse.Namespace) -> list[str]:
    """The flags of a live comparison that have another value than the default."""
    parser = argparse.ArgumentParser(add_help=False)
    add_flags(parser)
    defaults = vars(parser.parse_args([]))
    return [f"--{name.replace('_', '-')}" for name, value in defaults.items() if getattr(args, name) != value]


def compare_live(args: argparse.Namespace, rules: Rules) -> Comparisons:
    """Runs blocks until one decides or the budget ends. UserError for what cannot be compared, or where the
    results directory holds an earlier comparison: going on after a look would break its guarantee."""
    if args.budget < 1:
        raise UserError(f"--budget must be at least 1, not {args.budget}")
    commands = (_parsed(args.base), _parsed(args.new or args.base))
    sides = (
        _side("A", commands[0], args.a_python, args.a_env),
        _side("B", commands[1], args.b_python, args.b_env),
    )
    if sides[0] == msgspec.structs.replace(sides[1], name="A"):
        raise UserError("both sides are the same; name another command line, --b-env or --b-python")
    pairs = [_measured(side) for side in sides]
    if pairs[0] != pairs[1]:
        raise UserError(
            "both sides need the same number of measured iterations, --num-iter less --num-warmup, "
            f"not {pairs[0]} and {pairs[1]}"
        )
    homes = [args.results_dir / name for name in ("a", "b")]
    if any(rounds_of(home) for home in homes):
        raise UserError(f"{args.results_dir} holds an earlier comparison; choose another --results-dir")
    for side in sides:
        if side.python != sys.executable:
            check_runs_workers(side.python, side.variables)
    _check_devices(sides, commands)
    blocks: tuple[list[Record], list[Record]] = ([], [])
    draw, alone, alone_blocks = random.Random(), False, 0
    for number in range(1, args.budget + 1):
        directories = homes[0] / f"{ROUND}{number}", homes[1] / f"{ROUND}{number}"
        made = run_block(sides, directories, draw, log_line, alone=alone)
        if not alone and _out_of_memory(made):
            alone = True
            log_line(
                "memory holds one worker alone: they run one after the other now, and more blocks are needed"
            )
            made = run_block(sides, directories, draw, log_line, alone=True)
        alone_blocks += alone
        for records, record in zip(blocks, made, strict=True):
            records.append(record)
        found = compare_blocks(*blocks, rules.limits, rules.primary, alone_blocks)
        log_line(f"block {number}: {found.verdict}: {found.reason}")
        if found.verdict != "inconclusive":
            break
    files = [where / f"{record.id}.json" for where, record in zip(directories, made, strict=True)]
    found = with_answers(found, *files)
    return Comparisons(
        runs=[found], left_out=[], judged=0, false_by_chance=0.0, exit_code=verdict_exit_code({found.verdict})
    )


def _out_of_memory(records: tuple[Record, Record]) -> bool:
    return any(record.status == "oom" for record in records)


def _side(name: str, args: argparse.Namespace, python: str, variables: list[str]) -> Side:
    """The side that a command line gives, with the warm-up that keeps both sides' generations together."""
    runtime, *others = runtime_names(args)
    if others or args.accuracy_only or args.save_model:
        raise UserError("a live comparison takes latency runs of one runtime on each side")
    device = args.device or generation.device_of_worker(runtime, python)
    order = generation.order_for(args, runtime, device)
    spec, *more = order.specs
    assert isinstance(spec, RunSpec)
    if more:
        raise UserError(
            f"a side of a live comparison is one run, and {name}'s command line gives {len(more) + 1}"
        )
    if spec.protocol.until_ci is not None:
        raise UserError("--until-ci would part the two sides' generations; leave it out of a live comparison")
    if spec.protocol.loads > 1:
        raise UserError("each block of a live comparison loads both sides anew; leave out --loads")
    pairs = spec.protocol.num_iter - spec.protocol.num_warmup
    # Both sides make the same generations one after the other.
    fixed = {"num_iter": pairs + WARMUP, "num_warmup": WARMUP, "every_pair": True}
    protocol = msgspec.structs.replace(spec.protocol, **fixed)
    order = msgspec.structs.replace(order, specs=[msgspec.structs.replace(spec, protocol=protocol)])
    return Side(name=name, order=order, python=python, variables=_variables(variables))


def _parsed(command: str) -> argparse.Namespace:
    parser = Parser(prog="xpubench generate", add_help=False)
    generation.add_flags(parser)
    return parser.parse_args(words(command))


def _check_devices(sides: tuple[Side, Side], commands: tuple[argparse.Namespace, ...]) -> None:
    """UserError where the sides would run on two devices, and one of them was not named."""
    first, second = (side.order.specs[0].subject.device for side in sides)
    if first != second and any(args.device is None for args in commands):
        raise UserError(
            f"A would run on {first} and B on {second}, as no --device says otherwise; name one in each "
            "command line"
        )


def _measured(side: Side) -> int:
    """The number of generations of a side that are measured."""
    spec = side.order.specs[0]
    assert isinstance(spec, RunSpec)
    return spec.protocol.num_iter - spec.protocol.num_warmup


def _variables(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        variable, equals, value = text.partition("=")
        if not variable or not equals:
            raise UserError(f"{text!r} sets no variable; write NAME=VALUE")
        found[variable] = value
    return found
