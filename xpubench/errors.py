"""The two ways in which a run can go wrong, and the words that name them."""

from difflib import get_close_matches
from typing import Literal, get_args

FailureClass = Literal[
    "oom",
    "timeout",
    "crash",
    "unsupported",
    "bad_model",
    "numerics",
    "short_output",
    "interrupted",
]
FAILURE_CLASSES: tuple[str, ...] = get_args(FailureClass)
MOST_LISTED = 12


class UserError(ValueError):
    """What was asked cannot be done as asked; one line that says what to do. Exit code 2."""


class RunFailure(Exception):
    """A run that was started and failed: it becomes a record with this class. Exit code 1."""

    def __init__(self, failure_class: FailureClass, message: str) -> None:
        super().__init__(message)
        self.failure_class = failure_class
        self.message = message


def unknown(kind: str, name: str, known: list[str]) -> UserError:
    """The error for a name that is not known, with the nearest known ones."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = [lowered[match] for match in get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    if near:
        hint = f"did you mean {', '.join(near)}?"
    elif len(known) <= MOST_LISTED:
        hint = f"known: {', '.join(sorted(known))}"
    else:
        hint = "no known one is near it"
    return UserError(f"unknown {kind} {name!r}; {hint}")


def first_line(error: BaseException) -> str:
    """The first line of what an error says, its type's name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
