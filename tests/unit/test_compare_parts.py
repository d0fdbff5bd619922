"""`compare` names the parts of a token's time that changed, where both records have their ledgers."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests import records
from tests.conftest import CommandLine
from tests.records import explained, ledger
from xpubench.explanation import Ledger
from xpubench.record import Record

# Milliseconds of a next token.
BASE = {"weights": 12.0, "attention": 2.0, "host": 6.0}


def with_ledgers(next_token: Ledger | None, first: Ledger | None = None) -> Any:
    """A change of a record, as `round_of` takes it."""
    return lambda record: explained(record, next_token, first)


@pytest.fixture
def in_rounds(xpubench: CommandLine, tmp_path: Path) -> CommandLine:
    """`in_rounds(factor, base, new, *flags)`: three rounds of a run and of one that is slower by a factor,
    with these changes of their records."""

    def run(factor: float, base: Any, new: Any, *flags: object) -> Any:
        for number in (1, 2, 3):
            records.round_of(tmp_path / "a", number, changed=base)
            records.round_of(tmp_path / "b", number, slow=factor, second=True, changed=new)
        return xpubench("compare", tmp_path / "a", tmp_path / "b", *flags)

    return run


def parts_of(done: Any) -> Any:
    """The parts of the one run of `--json`."""
    (run,) = json.loads(done.out)["runs"]
    return run["parts"]


def test_the_part_that_changed_stands_beside_the_verdict(in_rounds: CommandLine) -> None:
    base = with_ledgers(ledger("next", BASE))
    new = with_ledgers(ledger("next", BASE | {"host": 7.6, "attention": 2.1}))
    done = in_rounds(1.09, base, new)
    assert done.code == 1
    # The column is narrow, so that the line goes on in the next row.
    assert re.search(r" slower +slower by 9%: .*\n.* host \+8% ", done.out)
    assert "| slower | slower by 9%: host +8% |" in in_rounds(1.09, base, new, "--format", "md").out
    found = parts_of(in_rounds(1.09, base, new, "--json"))
    assert found["message"] == "slower by 9%: host +8%"
    (part,) = found["parts"]
    assert (part["name"], part["share"]) == ("host", pytest.approx(0.08))


def test_parts_are_in_percent_of_the_base_and_the_largest_comes_first(in_rounds: CommandLine) -> None:
    base = with_ledgers(ledger("next", BASE))
    new = with_ledgers(ledger("next", {"weights": 8.0, "kv_cache": 1.0, "attention": 1.0, "host": 6.1}))
    done = in_rounds(0.8, base, new, "--json")
    message = "faster by 20%: weights -20%, KV cache +5%, attention -5%"
    assert parts_of(done)["message"] == message


def test_what_the_ledgers_do_not_hold_is_said(in_rounds: CommandLine) -> None:
    base = with_ledgers(ledger("next", BASE))
    new = with_ledgers(ledger("next", BASE | {"host": 6.8}))
    assert parts_of(in_rounds(1.1, base, new, "--json"))["message"] == (
        "slower by 10%: host +4%, not in the ledgers +6%"
    )


@pytest.mark.parametrize("primary", ["first_token", "next_token", "end_to_end"])
def test_the_ledger_is_that_of_the_figure_that_is_judged(in_rounds: CommandLine, primary: str) -> None:
    first = {"weights": 150.0, "host": 50.0}
    base = with_ledgers(ledger("next", BASE), ledger("first", first))
    new = with_ledgers(ledger("next", BASE | {"host": 8.0}), ledger("first", first | {"weights": 170.0}))
    found = parts_of(in_rounds(1.1, base, new, "--json", "--primary", primary))
    named = {"first_token": "weights", "next_token": "host"}
    assert (found and found["parts"][0]["name"]) == named.get(primary)


REFUSED = ledger("next", BASE, refused="the parts' sum is 9.0% above the token's time")


@pytest.mark.parametrize("lacking", [with_ledgers(REFUSED), with_ledgers(None), lambda record: record])
def test_no_part_is_named_without_two_ledgers_that_hold(in_rounds: CommandLine, lacking: Any) -> None:
    whole = with_ledgers(ledger("next", BASE | {"host": 8.0}))
    for base, new in ((lacking, whole), (whole, lacking)):
        done = in_rounds(1.1, base, new, "--json")
        assert done.code == 1
        assert parts_of(done) is None
    assert "parts that changed" not in in_rounds(1.1, lacking, whole).out


def test_a_round_whose_ledger_was_refused_is_left_out_of_the_means(
    xpubench: CommandLine, tmp_path: Path
) -> None:
    for number, host, refused in ((1, 7.0, None), (2, 60.0, "too far"), (3, 9.0, None)):
        records.round_of(tmp_path / "a", number, changed=with_ledgers(ledger("next", BASE)))
        found = ledger("next", BASE | {"host": host}, refused=refused)
        records.round_of(tmp_path / "b", number, slow=1.1, second=True, changed=with_ledgers(found))
    done = xpubench("compare", tmp_path / "a", tmp_path / "b", "--json")
    assert parts_of(done)["message"] == "slower by 10%: host +10%"


def test_parts_give_no_verdict(in_rounds: CommandLine, xpubench: CommandLine, tmp_path: Path) -> None:
    """A latency that is the same names none, and two single processes stay inconclusive."""
    base = with_ledgers(ledger("next", BASE))
    new = with_ledgers(ledger("next", BASE | {"host": 8.0, "weights": 10.0}))
    done = in_rounds(1.0, base, new, "--json")
    assert done.code == 0
    assert parts_of(done) is None
    one, other = (records.latency_record(records.subject(), next_ms=ms) for ms in (20.0, 22.0))
    records.write(tmp_path / "one", base(one), "run")
    records.write(tmp_path / "other", new(other), "run")
    done = xpubench("compare", tmp_path / "one", tmp_path / "other", "--json")
    assert done.code == 3
    assert parts_of(done)["message"].startswith("+10%, inconclusive: ")


def test_the_page_of_two_directories_has_the_column_where_a_pair_tells_parts(
    in_rounds: CommandLine, xpubench: CommandLine, tmp_path: Path
) -> None:
    def table() -> str:
        return str(xpubench("report", "--diff", tmp_path / "a", tmp_path / "b", "--format", "md").out)

    in_rounds(1.1, lambda record: record, lambda record: record)
    assert "Parts that changed" not in table()
    whole = with_ledgers(ledger("next", BASE))
    in_rounds(1.1, whole, with_ledgers(ledger("next", BASE | {"host": 8.0})))
    assert "Parts that changed" in table()
    assert "slower by 10%: host +10%" in table()


def test_records_of_other_stacks_are_compared_part_by_part(xpubench: CommandLine, tmp_path: Path) -> None:
    def of(runtime: str, parts: dict[str, float], next_ms: float) -> Record:
        made = records.latency_record(records.subject(runtime=runtime), next_ms=next_ms)
        return msgspec.structs.replace(explained(made, ledger("next", parts)), id=runtime)

    records.write(tmp_path, of("pytorch", BASE, 20.0), "a")
    records.write(tmp_path, of("ipex", {"weights": 12.0, "attention": 2.0, "stack": 1.0}, 15.0), "b")
    done = xpubench("compare", tmp_path / "a.json", tmp_path / "b.json", "--json")
    assert parts_of(done)["message"] == "-25%, inconclusive: host -30%, inside the stack +5%"
