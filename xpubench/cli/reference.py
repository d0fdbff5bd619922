"""Score a task in float32 with stock PyTorch, for the report to hold other runs of the model against."""

import argparse

from xpubench.cli import generation
from xpubench.cli.options import runtime_names
from xpubench.errors import UserError
from xpubench.runtimes.options import was_given
from xpubench.runtimes.registry import DEFAULT

DTYPE = "float32"
# Flags with which the report would not accept the record as a reference.
REFUSED = ("--acc-iter", "--until-decided", "--woq", "--woq_checkpoint_path", "--save_model", "--lora")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags, which are those of `generate`."""
    generation.add_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the tasks; 0 when all went well. UserError for flags that make something other than a
    reference."""
    if args.dtype not in (None, DTYPE) or runtime_names(args) != [DEFAULT]:
        raise UserError(f"a reference is made in {DTYPE} through {DEFAULT}; leave out --dtype and --runtime")
    for flag in REFUSED:
        if was_given(getattr(args, flag.strip("-").replace("-", "_"))):
            raise UserError(f"a reference is the model itself on the whole task; leave out {flag}")
    args.dtype, args.accuracy_only = DTYPE, True
    return generation.run(args)
