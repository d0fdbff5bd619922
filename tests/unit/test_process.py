"""Child processes: what they report, and what becomes of one that does not."""

import sys
from collections.abc import Callable

import pytest

from xpubench.errors import RunFailure, UserError
from xpubench.process.child import run_child

# A child whose work is put in the place of the braces; the order is its argument.
PROGRAM = """
import os, signal, sys
from xpubench.errors import RunFailure, UserError
from xpubench.process.reports import Said, serve
def work(order, send):
    {}
sys.exit(serve(work))
"""


def child(work: str, say: Callable[[str], None] = lambda text: None) -> None:
    """Carries out the order `"an order"` by such a child."""
    run_child([sys.executable, "-c", PROGRAM.format(work)], b'"an order"', say, "the child")


def test_the_order_arrives_and_what_it_says_comes_back() -> None:
    said: list[str] = []
    # A log on a full disk is no reason to fail.
    full = "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)"
    works = "print('a library', flush=True); send(Said(order.decode().strip())); send(Said('ü' * 100000))"
    child(f"{full}; {works}", said.append)
    assert said == ['"an order"', "ü" * 100000]


@pytest.mark.parametrize(
    ("work", "failure", "message"),
    [
        ("raise RunFailure('bad_model', 'no weights')", "bad_model", "no weights"),
        ("1 / 0", "crash", "the child: ZeroDivisionError: division by zero"),
        ("raise MemoryError", "oom", "out of memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crash", "the child was killed by SIGSEGV"),
        ("os.write(2, b'last words\\n'); os._exit(3)", "crash", "exit code 3 .*: last words"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "interrupted", "interrupted"),
    ],
)
def test_failures_of_a_child(work: str, failure: str, message: str) -> None:
    with pytest.raises(RunFailure, match=message) as raised:
        child(work)
    assert raised.value.failure_class == failure


def test_a_child_that_refuses() -> None:
    with pytest.raises(UserError, match="there is no such thing"):
        child("raise UserError('there is no such thing')")


def test_a_command_that_cannot_be_started() -> None:
    with pytest.raises(RunFailure, match="No such file"):
        run_child(["/none/such"], b"", lambda text: None, "the child")
