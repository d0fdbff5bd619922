"""The divergence from a reference, against values worked out on small distributions."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from tests.records import subject
from xpubench.accuracy import divergence
from xpubench.accuracy.check import Checks
from xpubench.accuracy.divergence import Trace
from xpubench.errors import UserError
from xpubench.measure.times import TokenTimes
from xpubench.record import ReferenceLimits, SyncPolicy
from xpubench.runtimes.base import Generation, Generator, Logits, TokenIds
from xpubench.runtimes.vocabulary import Vocabulary
from xpubench.spec import Protocol, RunSpec, Workload


def trace(logits: list[list[float]], tokens: list[int], kept: int) -> Trace:
    values = np.array([logits], dtype=np.float32)
    logprobs = values - np.log(np.exp(values).sum(-1, keepdims=True))
    top_ids = np.argsort(-logprobs, axis=-1)[..., :kept]
    return Trace(
        prompt_ids=np.array([[1, 2]]),
        tokens=np.array([tokens]),
        top_ids=top_ids,
        top_logprobs=np.take_along_axis(logprobs, top_ids, -1),
    )


def logits_of(*probabilities: list[float]) -> list[list[float]]:
    return np.log(np.array(probabilities)).tolist()  # type: ignore[no-any-return]


def test_equal_runs_do_not_diverge() -> None:
    same = logits_of([0.7, 0.2, 0.1], [0.1, 0.2, 0.7])
    reference = trace(same, [0, 2], kept=3)
    found = divergence.compare("r", reference, reference, np.array([same], dtype=np.float32))
    assert found.top1_agreement == 1
    assert found.mean_kl == pytest.approx(0, abs=1e-6)
    assert found.first_divergence == [None]


def test_kl_and_agreement_by_hand() -> None:
    reference = trace(logits_of([0.5, 0.25, 0.25], [0.8, 0.1, 0.1]), [0, 0], kept=3)
    own = trace(logits_of([0.5, 0.25, 0.25], [0.8, 0.1, 0.1]), [0, 1], kept=3)
    run = np.array([logits_of([0.25, 0.5, 0.25], [0.8, 0.1, 0.1])], dtype=np.float32)
    found = divergence.compare("r", reference, own, run)
    first = 0.5 * np.log(0.5 / 0.25) + 0.25 * np.log(0.25 / 0.5)
    assert found.mean_kl == pytest.approx(first / 2, rel=1e-5)
    assert found.top1_agreement == 0.5
    assert found.first_divergence == [1]
    assert found.positions == 2


def test_equally_probable_tokens_agree_in_whatever_order_they_are_kept() -> None:
    tied = logits_of([0.4, 0.4, 0.2], [0.4, 0.4, 0.2])
    reference = trace(tied, [0, 1], kept=3)
    reference.top_ids[0, 0, :2] = 0, 1
    reference.top_ids[0, 1, :2] = 1, 0
    found = divergence.compare("r", reference, reference, np.array([tied], dtype=np.float32))
    assert found.top1_agreement == 1
    other = np.array([logits_of([0.4, 0.4, 0.2], [0.2, 0.2, 0.6])], dtype=np.float32)
    assert divergence.compare("r", reference, reference, other).top1_agreement == 0.5


def test_the_rest_is_one_bucket_and_gives_a_lower_bound() -> None:
    p, q = [0.6, 0.3, 0.1], [0.6, 0.1, 0.3]
    reference = trace(logits_of(p), [0], kept=1)
    found = divergence.compare("r", reference, reference, np.array([logits_of(q)], dtype=np.float32))
    # Both hold 0.6 on the kept token and 0.4 on the rest, so the bucketed KL is 0 and the whole one is not.
    assert found.mean_kl == pytest.approx(0, abs=1e-6)


def test_a_trace_survives_its_file(tmp_path: Path) -> None:
    kept = trace(logits_of([0.7, 0.2, 0.1]), [0], kept=2)
    path = tmp_path / "x.check.npz"
    path.write_bytes(divergence.save(kept))
    loaded = divergence.load(path)
    assert np.array_equal(loaded.top_logprobs, kept.top_logprobs)
    others = Trace(
        prompt_ids=kept.prompt_ids,
        tokens=kept.tokens,
        top_ids=kept.top_ids[..., :1],
        top_logprobs=kept.top_logprobs,
    )
    path.write_bytes(divergence.save(others))
    with pytest.raises(UserError, match="do not belong together"):
        divergence.load(path)
    path.write_bytes(divergence.save(kept)[:50])
    with pytest.raises(UserError, match="not a whole check file"):
        divergence.load(path)
    with pytest.raises(UserError, match="make the reference again"):
        divergence.load(tmp_path / "y.check.npz")


class OneSequence:
    """A loaded model that hides its logits and takes one sequence of the shape that it was prepared for. Its
    tokens count up from the last one of the prompt."""

    prepared: Workload | None = None

    def prepare(self, workload: Workload) -> None:
        self.prepared = workload

    def generate(self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy) -> Generation:
        assert self.prepared == workload
        assert prompt_ids.shape == (1, workload.input_tokens)
        tokens = prompt_ids[:, -1:] + 1 + np.arange(workload.new_tokens)
        times = TokenTimes(sync_policy=sync_policy, start_ns=0, token_ns=[], end_ns=1)
        return Generation(tokens=tokens, times=times, logits=None)


def test_a_device_that_takes_one_sequence_is_asked_for_one_at_a_time() -> None:
    prompt_ids = np.array([[1, 2], [5, 6]])
    tokens = np.array([[3, 4, 5], [7, 9, 9]])
    top_logprobs = np.zeros((2, 3, 1), dtype=np.float32)
    reference = Trace(
        prompt_ids=prompt_ids, tokens=tokens, top_ids=tokens[..., None], top_logprobs=top_logprobs
    )
    workload = Workload(input_tokens=8, new_tokens=4, batch_size=4)
    generator = cast("Generator", OneSequence())
    own, found = divergence.compare_tokens("r", reference, generator, workload)
    assert own.tolist() == [[3, 4, 5], [7, 8, 9]]
    # Behind 7 comes 8, and behind 9 comes 10.
    assert found.top1_agreement == pytest.approx(4 / 6)
    assert found.first_divergence == [None, 1]


class WrongFirstRow:
    """A loaded model whose tokens are those of the prompt, but for the first row of a batch where it is
    `wrong`, whatever that row holds."""

    def __init__(self, *, wrong: bool) -> None:
        self.vocabulary = Vocabulary("letters", 50, None, lambda name: None)
        self.wrong = wrong

    @property
    def explainer(self) -> None:
        return None

    @property
    def scorer(self) -> "WrongFirstRow":
        return self

    def prepare(self, workload: Workload) -> None:
        pass

    def trace(
        self, prompt_ids: TokenIds, workload: Workload, forced: TokenIds | None
    ) -> tuple[TokenIds, Logits]:
        tokens = np.resize(prompt_ids, (len(prompt_ids), workload.new_tokens))
        tokens[:] = prompt_ids[:, :1]
        tokens[0] += self.wrong
        return tokens, np.eye(51, dtype=np.float32)[tokens]


@pytest.mark.parametrize("wrong", [False, True])
def test_the_second_answers_stand_in_other_rows(wrong: bool) -> None:
    """A fault of one place of the batch hits another prompt then."""
    generator = cast("Generator", WrongFirstRow(wrong=wrong))
    limits = ReferenceLimits(kl_warning=1, kl_failure=1, agreement_warning=0, agreement_failure=0)
    workload = Workload(input_tokens=8, new_tokens=4)
    spec = RunSpec(subject=subject(), workload=workload, protocol=Protocol())
    before, after = Checks(generator, None, None, limits).before_and_after(spec)
    assert np.array_equal(before.prompt_ids, after.prompt_ids)
    assert len(before.prompt_ids) > 2
    assert 0 < after.tokens.shape[1] <= before.tokens.shape[1]
    differing = (before.tokens[:, : after.tokens.shape[1]] != after.tokens).any(axis=1)
    assert differing.sum() == (2 if wrong else 0)


class UnrepeatedFirst(WrongFirstRow):
    """A loaded model whose first generation gives the first row other tokens than all later ones."""

    def trace(
        self, prompt_ids: TokenIds, workload: Workload, forced: TokenIds | None
    ) -> tuple[TokenIds, Logits]:
        answer = super().trace(prompt_ids, workload, forced)
        self.wrong = False
        return answer


@pytest.mark.parametrize(("model", "said"), [(UnrepeatedFirst, 1), (WrongFirstRow, 0)])
def test_a_stack_that_does_not_repeat_itself(model: type[WrongFirstRow], said: int) -> None:
    """A difference that the second generation has too is the stack's own, and is no such doubt."""
    limits = ReferenceLimits(kl_warning=99, kl_failure=99, agreement_warning=0, agreement_failure=0)
    spec = RunSpec(subject=subject(), workload=Workload(input_tokens=8, new_tokens=4), protocol=Protocol())
    right = cast("Generator", WrongFirstRow(wrong=False))
    prompts = divergence.check_prompts(right.vocabulary, None, 0)
    expected = divergence.trace(right, prompts, spec.workload)
    stack = model(wrong=True)
    stack.vocabulary = Vocabulary("letters", expected.top_ids.max() + 1, None, lambda name: None)
    checks = Checks(cast("Generator", stack), "r", expected, limits)
    _, found = checks.answer(spec)
    assert found is not None
    assert [place for place in found.first_divergence if place is not None] == [0]
    doubts = [one for one in checks.doubts(spec) if "does not repeat itself" in one]
    assert len(doubts) == said
