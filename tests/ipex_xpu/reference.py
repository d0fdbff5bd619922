"""Whether generated tokens are right: against plain transformers in float32 on the CPU.

float16 rounds logits, so that near ties may end otherwise and the tokens after them with them. What must
hold:

- Greedy: the float32 logit of each token, after the same tokens, lies within `LOGIT_TOLERANCE` of the
  largest.
- Beams: the sequence's mean log-probability per token lies within `SCORE_TOLERANCE` of that of plain
  transformers' own beam search, or of one of `NOISY_TRIALS` such searches with logits that are off by up to
  `LOGIT_NOISE`, as a beam that a near tie drops does not come back.

The tolerances are some ten times what float16 did to these models, and a fraction of what a missing causal
mask does.
"""

from pathlib import Path
from typing import Any

LOGIT_TOLERANCE = 0.1
SCORE_TOLERANCE = 0.02
LOGIT_NOISE = 0.01
NOISY_TRIALS = 24


class PlainReference:
    """A model in float32 on the CPU."""

    def __init__(self, directory: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(
            directory, torch_dtype=torch.float32, trust_remote_code=True
        ).eval()
        self._scores: dict[tuple[Any, ...], float] = {}

    def error(self, call: dict[str, Any]) -> float:
        """By how much the call's worst row is wrong, in tolerances: right up to 1. The call is a line of
        `tests.ipex_xpu.observation`."""
        rows = [self._row_error(row, call["prompt_tokens"], call["beams"]) for row in call["sequences"]]
        return max(rows)

    def _row_error(self, row: list[int], prompt_tokens: int, beams: int) -> float:
        import torch

        with torch.inference_mode():
            logits = self.model(torch.tensor([row])).logits[0, prompt_tokens - 1 : -1]
        new = torch.tensor(row[prompt_tokens:])
        if beams == 1:
            chosen = logits.gather(1, new[:, None])[:, 0]
            return float((logits.max(-1).values - chosen).max()) / LOGIT_TOLERANCE
        score = float(torch.log_softmax(logits, -1).gather(1, new[:, None]).mean())
        errors = []
        for trial in range(NOISY_TRIALS):
            best = self._best_score(row[:prompt_tokens], len(new), beams, trial)
            errors.append(abs(best - score) / SCORE_TOLERANCE)
            if errors[-1] <= 1:
                break
        return min(errors)

    def _best_score(self, prompt: list[int], new_tokens: int, beams: int, trial: int) -> float:
        """The mean log-probability per new token of transformers' own beam search, whose logits have noise
        in every trial but the first."""
        import torch
        from transformers import LogitsProcessorList

        key = (*prompt, new_tokens, beams, trial)
        if key not in self._scores:
            ids = torch.tensor([prompt])
            random = torch.Generator().manual_seed(trial)

            def with_noise(_: Any, scores: Any) -> Any:
                noise = torch.rand(scores.shape, generator=random) * 2 - 1
                return scores + (LOGIT_NOISE * noise if trial else 0)

            with torch.inference_mode():
                found = self.model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    num_beams=beams,
                    do_sample=False,
                    min_new_tokens=new_tokens,
                    max_new_tokens=new_tokens,
                    pad_token_id=0,
                    eos_token_id=None,
                    logits_processor=LogitsProcessorList([with_noise]),
                )
                logits = self.model(found).logits[0, len(prompt) - 1 : -1]
            new = found[0, len(prompt) :]
            self._scores[key] = float(torch.log_softmax(logits, -1).gather(1, new[:, None]).mean())
        return self._scores[key]
