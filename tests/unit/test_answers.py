"""The answers to the check prompts beside two records, held against each other by `compare`."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.conftest import CommandLine

# Of the 32 tokens of each of four prompts, the fifth of the untimed generations.
OTHER = {"wrong_tokens": [{"token": 7, "step": 4, "last": 0}], "regret": 0.0}
TOLD = "other tokens on 4 of 4 check prompts, from token 5 of 32"


class Pair:
    """Two runs whose answers differ, or not."""

    def __init__(self, scripted: CommandLine, xpubench: CommandLine, directory: Path) -> None:
        self._scripted, self._xpubench, self._directory = scripted, xpubench, directory

    def run(self, name: str, **script: Any) -> Path:
        done = self._scripted(script, "--results-dir", self._directory / name)
        assert done.code == 0, done.err
        return self._directory / name / f"{done.records[0]['id']}.json"

    def compare(self, base: Path, new: Path, *flags: object) -> str:
        done = self._xpubench("compare", base, new, *flags)
        assert (done.code, done.err) == (3, "")
        return done.out


@pytest.fixture
def pair(scripted: CommandLine, xpubench: CommandLine, tmp_path: Path) -> Pair:
    return Pair(scripted, xpubench, tmp_path)


def check_file(record: Path) -> Path:
    return record.with_name(f"{record.stem}.check.npz")


def test_other_answers_are_told_in_each_form(pair: Pair) -> None:
    base, new = pair.run("a"), pair.run("b", **OTHER)
    assert TOLD in " ".join(pair.compare(base, new).split())
    assert TOLD in pair.compare(base, new, "--format", "md")
    junit = ElementTree.fromstring(pair.compare(base, new, "--format", "junit"))
    assert TOLD in (junit.findtext("testcase/system-out") or "")
    # Directories too, of which a run is known by its id.
    assert TOLD in " ".join(pair.compare(base.parent, new.parent).split())


def test_the_same_answers_and_those_of_other_prompts_are_not(pair: Pair) -> None:
    base, same, new = pair.run("a"), pair.run("b"), pair.run("c", **OTHER)
    assert "other tokens on" not in pair.compare(base, same)
    path = check_file(new)
    with np.load(path) as arrays:
        answers = dict(arrays)
    answers["prompt_ids"] += 1
    np.savez(path, **answers)
    assert "other tokens on" not in pair.compare(base, new)
    path.unlink()
    assert "other tokens on" not in pair.compare(base, new)


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04 half of one"])
def test_a_check_file_that_is_not_whole_is_a_warning(pair: Pair, data: bytes) -> None:
    base, new = pair.run("a"), pair.run("b", **OTHER)
    check_file(new).write_bytes(data)
    told = " ".join(pair.compare(base, new).split())
    assert f"warning, {check_file(new)} is not a whole check file" in told


def test_arrays_that_do_not_belong_together_are_a_warning(pair: Pair) -> None:
    base, new = pair.run("a"), pair.run("b", **OTHER)
    with np.load(check_file(new)) as arrays:
        answers = dict(arrays)
    np.savez(check_file(new), **answers | {"top_ids": answers["top_ids"][:, :3]})
    assert "do not belong together" in pair.compare(base, new)


def test_the_divergence_up_to_the_other_token_is_that_of_the_kept_ones(pair: Pair) -> None:
    base, new = pair.run("a"), pair.run("b", **OTHER)
    for path, share in ((check_file(base), 0.6), (check_file(new), 0.3)):
        with np.load(path) as arrays:
            answers = dict(arrays)
        shape = (*answers["tokens"].shape, 1)
        answers["top_ids"] = np.full(shape, 100)
        answers["top_logprobs"] = np.full(shape, np.log(share), np.float32)
        np.savez(path, **answers)
    expected = 0.6 * np.log(0.6 / 0.3) + 0.4 * np.log(0.4 / 0.7)
    assert f"a KL divergence of {expected:.2g} nats" in " ".join(pair.compare(base, new).split())
