"""Which interpreter runs an order: that of the environment that its suite names, or this one."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from shutil import which

import msgspec

from xpubench.errors import UserError, shortened
from xpubench.run.order import Order
from xpubench.run.suite import SuiteEnvironment
from xpubench.run.supervisor import PACKAGES, find_mpirun
from xpubench.runtimes.registry import options_class

PROBE = "import importlib.metadata, sys; importlib.metadata.version(sys.argv[1])"
DEVICE = (
    "import sys; from xpubench.runtimes.registry import loader; "
    "found = loader(sys.argv[1]); found.set_up(); print(found.first_device())"
)
WORKER = "import xpubench.run.worker"
PROBE_S = 120.0


def placed(order: Order, environment: SuiteEnvironment | None, *, optional: bool) -> Order | str:
    """The order with the interpreter and the variables of its environment, where it has one. An `optional`
    order takes that interpreter or else this one, whichever has the package of its runtime; the reason
    where neither has. UserError for an interpreter that is not there, or that has no mpirun for its ranks."""
    chosen = environment or SuiteEnvironment()
    runtime = order.specs[0].subject.runtime
    pythons: list[str | None] = [chosen.python, None] if optional else [chosen.python]
    package = next(iter(options_class(runtime).packages), None)
    for python in pythons:
        here = python is None or which(python) is not None
        if optional and not (here and (package is None or has_package(python, package))):
            continue
        if not here:
            raise UserError(f"the suite's interpreter {python} is not there")
        if order.ranks is not None:
            find_mpirun(python)
        # Another interpreter's variables are not this one's.
        variables = chosen.variables if python == chosen.python else {}
        return msgspec.structs.replace(order, python=python, variables=variables)
    names = " nor ".join(python or sys.executable for python in dict.fromkeys(pythons))
    return f"{runtime} is left out: neither {names} has {package}"


def check_runs_workers(python: str, variables: Mapping[str, str]) -> None:
    """UserError where an interpreter, with these variables in its environment, cannot run a worker: no run
    of it would tell anything of what is measured. No stack is imported."""
    if which(python) is None:
        raise UserError(f"the interpreter {shortened(python)} is not there, or is no program")
    try:
        done = subprocess.run(
            [python, "-c", WORKER],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_S,
            check=False,
            env=os.environ | variables,
        )
        lines = done.stderr.decode(errors="replace").splitlines()
        problem = "" if done.returncode == 0 else lines[-1] if lines else f"exit code {done.returncode}"
    except OSError as error:
        problem = error.strerror or "the system refuses it"
    except subprocess.TimeoutExpired:
        problem = f"no answer within {PROBE_S:g} s"
    if problem:
        raise UserError(f"the interpreter {python} runs no worker of this tool ({problem}); install it there")


@cache
def has_package(python: str | None, package: str) -> bool:
    """Whether an interpreter, by default this one, has a package, by its name on PyPI."""
    command = [python or sys.executable, "-c", PROBE, package]
    try:
        return subprocess.run(command, capture_output=True, timeout=PROBE_S, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@cache
def first_device_of(python: str, runtime: str) -> str | None:
    """The preferred device that a runtime finds under another interpreter; None where it cannot tell, such as
    one that lacks the runtime's stack."""
    environment = os.environ | {"PYTHONPATH": PACKAGES}
    try:
        done = subprocess.run(
            [python, "-c", DEVICE, runtime],
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=True,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split()[-1] if done.stdout.strip() else None


def check_distinct(orders: Sequence[Order]) -> None:
    """UserError where two orders make the same run, whose record would be one file: a run's id does not
    name the environment."""
    seen: dict[str, Order] = {}
    for order in orders:
        for spec in order.specs:
            other = seen.setdefault(spec.id, order)
            if (other.python, other.variables) != (order.python, order.variables):
                raise UserError(
                    f"two environments run the same {spec.subject.model} with {spec.subject.runtime}, and a "
                    "record has one place; make two suites with a --results-dir each, and compare these"
                )
