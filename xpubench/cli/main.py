"""`xpubench`: finds the command's module and runs it; an error becomes one line and an exit code."""

import argparse
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import xpubench
from xpubench.errors import RunFailure, UserError, unknown
from xpubench.process import signals
from xpubench.runtimes.registry import COMMANDS as RUNTIME_COMMANDS

# Each command with its module and its line in the help.
COMMANDS: dict[str, tuple[str, str]] = {
    "generate": ("xpubench.cli.generation", "measure the latency of each token, and check the tokens"),
    "models": ("xpubench.cli.models", "list the models of the catalog"),
    "suite": ("xpubench.cli.suite", "run a list of models, resumable"),
    "compare": ("xpubench.cli.compare", "compare runs: ratios, intervals, verdicts"),
    "quantize": ("xpubench.cli.quantize", "make an INT4 checkpoint of a model"),
    "report": ("xpubench.cli.report", "records as one page: summary, validated models, runs, figures"),
    "history": ("xpubench.cli.history", "a model's figures in time, with the changes that are no noise"),
    "plan": ("xpubench.cli.plan", "bytes and roofline times of a model on a device"),
    "doctor": ("xpubench.cli.doctor", "what this machine can run, and what to install for the rest"),
} | RUNTIME_COMMANDS


FAILED, WRONG_USE = 1, 2


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the flags."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def main(arguments: list[str] | None = None) -> int:
    """`xpubench COMMAND ...`, by default with the arguments of this process; returns the exit code: 0 done,
    1 a run failed, 2 wrong use."""
    return guarded(lambda: _run(sys.argv[1:] if arguments is None else arguments))


def script(name: str) -> int:
    """A command under its own script's name, such as run_generation.py for `generate`; the exit code."""
    return guarded(lambda: _run_command(name, Path(sys.argv[0]).name, sys.argv[1:]))


def guarded(work: Callable[[], int]) -> int:
    """The exit code of the work; an error in it becomes one line. SIGTERM and SIGHUP end it as Ctrl-C does,
    with exit code 128 and the signal's number."""
    with signals.as_interruptions():
        try:
            return work()
        except UserError as error:
            return _say(error, WRONG_USE)
        except RunFailure as error:
            return _say(f"{error.failure_class}: {error.message}", FAILED)
        except KeyboardInterrupt:
            return _say("interrupted", signals.exit_code())
        except BrokenPipeError:
            # The reader of our output is gone; Python would complain again when it flushes at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED


def _run_command(name: str, prog: str, arguments: list[str]) -> int:
    module = import_module(COMMANDS[name][0])
    parser = Parser(prog=prog, description=module.__doc__)
    module.add_flags(parser)
    code: int = module.run(parser.parse_args(arguments))
    return code


def _run(arguments: list[str]) -> int:
    commands = "\n".join(f"  {name:10} {text}" for name, (_, text) in COMMANDS.items())
    parser = Parser(
        prog="xpubench",
        description="Per-token latency and accuracy of language models on Intel GPUs and CPUs.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"commands:\n{commands}\n\nxpubench COMMAND --help lists a command's flags.",
    )
    parser.add_argument("--version", action="version", version=f"xpubench {xpubench.__version__}")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="one of the commands below")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.command is None:
        raise UserError(f"no command; there are {', '.join(COMMANDS)} (xpubench --help)")
    if args.command not in COMMANDS:
        raise unknown("command", args.command, list(COMMANDS))
    return _run_command(args.command, f"xpubench {args.command}", args.flags)


def _say(problem: object, code: int) -> int:
    line = " ".join(str(problem).split())
    # A launcher that prefixes lines would split several writes.
    print(f"error: {line}\n", end="", file=sys.stderr)
    return code
