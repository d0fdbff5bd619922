"""`xpubench`: finds the command's module and runs it; an error becomes one line and an exit code."""

import argparse
import errno
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import xpubench
from xpubench.errors import RunFailure, UserError, shortened, unknown
from xpubench.process import signals
from xpubench.process.output import dropping_stderr, quiet
from xpubench.runtimes.registry import COMMANDS as RUNTIME_COMMANDS

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

# Each command with its module and its line in the help.
COMMANDS: dict[str, tuple[str, str]] = {
    "generate": ("xpubench.cli.generation", "measure the latency of each token, and check the tokens"),
    "models": ("xpubench.cli.models", "list the models of the catalog"),
    "suite": ("xpubench.cli.suite", "run a list of models, resumable"),
    "validate": ("xpubench.cli.validate", "run what the guide's table asks of this machine, with a report"),
    "compare": ("xpubench.cli.compare", "compare runs: ratios, intervals, verdicts"),
    "reference": ("xpubench.cli.reference", "score a task in float32, for the report to hold others against"),
    "quantize": ("xpubench.cli.quantize", "make an INT4 checkpoint of a model"),
    "report": ("xpubench.cli.report", "records as one page: summary, validated models, runs, figures"),
    "history": ("xpubench.cli.history", "a model's figures in time, with the changes that are no noise"),
    "plan": ("xpubench.cli.plan", "bytes and roofline times of a model on a device"),
    "doctor": ("xpubench.cli.doctor", "what this machine can run, and what to install for the rest"),
} | RUNTIME_COMMANDS

FAILED, WRONG_USE, UNWRITTEN = 1, 2, 4
# What a write to standard output fails with when it is full, closed or gone.
LOST = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO)


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the flags."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")

    def print_help(self, file: "SupportsWrite[str] | None" = None) -> None:
        # argparse itself is silent about a help that cannot be written.
        print(self.format_help(), end="", file=file)


def main(arguments: list[str] | None = None) -> int:
    """`xpubench COMMAND ...`, by default with the arguments of this process; returns the exit code: 0 done,
    1 a run failed, 2 wrong use, 4 the output could not be written."""
    return guarded(lambda: _run(sys.argv[1:] if arguments is None else arguments))


def script(name: str) -> int:
    """A command under its own script's name, such as run_generation.py for `generate`; the exit code."""
    return guarded(lambda: _run_command(name, Path(sys.argv[0]).name, sys.argv[1:]))


def guarded(work: Callable[[], int]) -> int:
    """The exit code of the work; an error in it becomes one line. SIGTERM and SIGHUP end it as Ctrl-C does,
    with exit code 128 and the signal's number. An output that cannot be written has an exit code of its own,
    and a file that the system refuses that of wrong use, so that nobody takes either for a verdict."""
    with signals.as_interruptions(), dropping_stderr():
        try:
            return _flushed(work)
        except UserError as error:
            return _say(error, WRONG_USE)
        except RunFailure as error:
            return _say(f"{error.failure_class}: {error.message}", FAILED)
        except KeyboardInterrupt:
            return _say("interrupted", signals.exit_code())
        except BrokenPipeError:
            return _unwritten()
        except UnicodeEncodeError as error:
            text = error.object[error.start : error.end][:20]
            problem = f"cannot write {text!a} in the encoding {error.encoding}; set PYTHONIOENCODING=utf-8"
            return _say(problem, _unwritten())
        except OSError as error:
            if error.filename is not None:
                return _say(f"cannot use {shortened(error.filename)}: {error.strerror}", WRONG_USE)
            if error.errno not in LOST:
                raise
            return _say(f"cannot write the output: {error.strerror}", _unwritten())


def _flushed(work: Callable[[], int]) -> int:
    """The exit code of the work, once its output is written."""
    if sys.stdout is None:
        raise UserError("standard output is closed; redirect it to a file or to /dev/null")
    try:
        code = work()
    except SystemExit as leaving:
        # Rich ends a program whose reader is gone.
        if isinstance(leaving.__context__, BrokenPipeError):
            raise leaving.__context__ from None
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return code


def _unwritten() -> int:
    """Drops what is left of the output, about which Python would complain when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return UNWRITTEN


def _run_command(name: str, prog: str, arguments: list[str]) -> int:
    if broken := next((text for text in arguments if not _is_text(text)), None):
        raise UserError(f"the argument {broken!a} is not valid UTF-8 text")
    quiet()
    module = import_module(COMMANDS[name][0])
    parser = Parser(prog=prog, description=module.__doc__)
    module.add_flags(parser)
    # Flags may stand between the arguments.
    code: int = module.run(parser.parse_intermixed_args(arguments))
    return code


def _is_text(argument: str) -> bool:
    # Bytes of the command line that are no UTF-8 arrive as halves of surrogate pairs.
    return not any("\ud800" <= letter <= "\udfff" for letter in argument)


def _run(arguments: list[str]) -> int:
    commands = "\n".join(f"  {name:10} {text}" for name, (_, text) in COMMANDS.items())
    parser = Parser(
        prog="xpubench",
        description="Per-token latency and accuracy of language models on Intel GPUs and CPUs.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"commands:\n{commands}\n\nxpubench COMMAND --help lists a command's flags.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="one of the commands below")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.version:
        print(f"xpubench {xpubench.__version__}")
        return 0
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
