"""The divergence from a reference, against values worked out on small distributions."""

from pathlib import Path

import numpy as np
import pytest

from xpubench.accuracy import divergence
from xpubench.accuracy.divergence import Trace
from xpubench.errors import UserError


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
