"""A runtime as a model of lm-eval, which computes logits only where they are scored."""

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from math import ceil
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from xpubench.accuracy.batches import run_batches
from xpubench.accuracy.work import ScoredWork
from xpubench.errors import RunFailure, UserError
from xpubench.progress import Progress
from xpubench.runtimes.base import Generator, Scorer
from xpubench.spec import Workload

DEFAULT_NEW_TOKENS = 256
# Texts are generated in pieces of this many tokens, so that one that ends early does not take the full time.
PIECE = 64

# A run looks at its items at most this many times, and after at least this many further ones each time.
LOOKS = 50
LEAST_ITEMS = 16

T = TypeVar("T")
TokenPair = tuple[list[int], list[int]]  # the ids of a context and of its continuation
Answer = tuple[float, bool]  # the log-likelihood of a continuation, and whether it is the greedy one


class RuntimeLM(TemplateLM):  # type: ignore[misc]  # lm-eval carries no types
    """lm-eval's view of a loaded runtime. `batch_size` 0 forms batches of `budget` tokens; both shrink when
    memory runs out. `done` holds the answered requests with their answers, `seconds` is the time that they
    took, `work` what was scored in it, and `truncated` counts those that were cut from the left."""

    def __init__(
        self,
        generator: Generator,
        max_length: int,
        progress: Progress,
        *,
        batch_size: int,
        budget: int,
    ) -> None:
        super().__init__()
        if generator.scorer is None:
            raise ValueError("a stack that hides its logits scores nothing")
        if generator.vocabulary.tokenizer is None:
            raise UserError("the model has no tokenizer that can be loaded, and accuracy needs one")
        self.tokenizer = generator.vocabulary.tokenizer
        self.scorer: Scorer = generator.scorer
        self.max_length = max_length
        self.truncated = 0
        self.done: list[tuple[Instance, Any]] = []
        self.seconds = 0.0
        self.work = ScoredWork()
        # With `look`, items are answered in an order drawn by `seed`, and it is called now and then.
        self.look: Callable[[], None] | None = None
        self.seed = 0
        self.drawn: list[int] = []
        self._asked: list[Instance] = []
        self._generator = generator
        self._progress = progress
        self.batch_size = batch_size
        self.budget = budget

    @property
    def eot_token_id(self) -> int | None:
        """None where no token ends a text."""
        eos = self.tokenizer.eos_token_id
        return None if eos is None else int(eos)

    @property
    def prefix_token_id(self) -> int:
        """The token that a text without a context begins with; RunFailure `unsupported` where there is
        none."""
        if (first := self._first_id) is None:
            reason = "the tokenizer has neither a BOS nor an EOS token, which a text without a context needs"
            raise RunFailure("unsupported", reason)
        return first

    @property
    def _first_id(self) -> int | None:
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    @cached_property
    def _first_text(self) -> str | None:
        """The text of the token that begins a sequence."""
        return None if self._first_id is None else str(self.tokenizer.decode([self._first_id]))

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        # The tokenizer adds its special tokens, unless the text begins with them.
        if add_special_tokens is None:
            add_special_tokens = self._first_text is None or not string.startswith(self._first_text)
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Answer]:
        for request in requests:
            if not any(request.args):
                raise _nothing_to_score(*request.args)
        return self._in_turns(requests, self._loglikelihood)

    def _loglikelihood(self, requests: list[Instance]) -> list[Answer]:
        # TemplateLM encodes the requests and passes them to `_loglikelihood_tokens` in the same order.
        self._asked = requests
        answers: list[Answer] = super().loglikelihood(requests, disable_tqdm=True)
        return answers

    def _in_turns(self, requests: list[Instance], answer: Callable[[list[Instance]], list[T]]) -> list[T]:
        """The requests' answers. With `look`, it is called before each of at most `LOOKS` parts of the
        items."""
        if self.look is None:
            return answer(requests)
        self.drawn = sorted({request.doc_id for request in requests})
        random.Random(self.seed).shuffle(self.drawn)
        found: dict[int, T] = {}
        step = max(LEAST_ITEMS, ceil(len(self.drawn) / LOOKS))
        for start in range(0, len(self.drawn), step):
            self.look()
            part = set(self.drawn[start : start + step])
            places = [place for place, request in enumerate(requests) if request.doc_id in part]
            found |= zip(places, answer([requests[place] for place in places]), strict=True)
        return [found[place] for place in range(len(requests))]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        encoded = [self.tok_encode(request.args[0]) for request in requests]
        windows: list[TokenPair] = []
        owners: list[int] = []
        for owner, tokens in enumerate(encoded):
            for window in get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1):
                windows.append(make_disjoint_window(window))
                owners.append(owner)
        sums = [0.0] * len(requests)
        left = Counter(owners)

        def keep(index: int, answer: Answer) -> None:
            owner = owners[index]
            sums[owner] += answer[0]
            left[owner] -= 1
            if not left[owner]:
                self.done.append((requests[owner], sums[owner]))

        self._score(windows, keep)
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Texts one by one, as the runtime's batches have sequences of one length."""
        return self._in_turns(requests, self._texts)

    def _texts(self, requests: list[Instance]) -> list[str]:
        self._progress.begin("generating", len(requests))
        self.batch_size = 1
        texts = []
        with self._timed(len(requests)) as tell:
            for request in requests:
                context, settings = request.args
                texts.append(self._generate(context, dict(settings)))
                self.done.append((request, texts[-1]))
                tell(1)
        return texts

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[Answer]:
        for texts, _context, continuation in requests:
            # As in lm-eval's own models: an empty continuation would score as certain and right.
            if not continuation:
                raise _nothing_to_score(*texts)
        # A context of spaces alone has no token, as they are encoded with the continuation.
        pairs = [(context or [self.prefix_token_id], end) for _texts, context, end in requests]
        asked = self._asked
        return self._score(pairs, lambda index, answer: self.done.append((asked[index], answer)))

    def _score(self, pairs: Sequence[TokenPair], keep: Callable[[int, Answer], None]) -> list[Answer]:
        """The answer for each pair; `keep` gets each one with its index as soon as it is known. What does not
        fit into the model's positions is cut from the left."""
        sequences = [(context + continuation)[-self.max_length - 1 :] for context, continuation in pairs]
        self.truncated += sum(len(context) + len(end) > self.max_length + 1 for context, end in pairs)
        ends = [min(len(end), len(whole) - 1) for (_, end), whole in zip(pairs, sequences, strict=True)]
        answers: list[Answer] = [(0.0, True)] * len(pairs)

        def work(batch: list[int]) -> None:
            longest = max(len(sequences[index]) for index in batch) - 1
            ids = np.zeros((len(batch), longest), dtype=np.int64)
            rows = np.zeros((len(batch), longest), dtype=np.bool_)
            for row, index in enumerate(batch):
                inputs = sequences[index][:-1]
                ids[row, : len(inputs)] = inputs
                rows[row, len(inputs) - ends[index] : len(inputs)] = True
            targets = [sequences[index][len(sequences[index]) - ends[index] :] for index in batch]
            flat = np.concatenate(targets).astype(np.int64)
            logprobs, best = self.scorer.target_logprobs(ids, rows, flat)
            self.work.add((len(sequences[index]) - 1 for index in batch), len(flat), ids.size)
            cuts = np.cumsum([ends[index] for index in batch])[:-1]
            for index, part, right in zip(batch, np.split(logprobs, cuts), np.split(best, cuts), strict=True):
                answers[index] = (float(part.sum(dtype=np.float64)), bool(right.all()))
                keep(index, answers[index])

        self._progress.begin("scoring", len(pairs))
        lengths = [len(sequence) for sequence in sequences]
        batches = run_batches(lengths, work, budget=self.budget, batch_size=self.batch_size)
        with self._timed(len(pairs)) as tell:
            for count, self.budget, self.batch_size in batches:
                tell(count)
        return answers

    @contextmanager
    def _timed(self, total: int) -> Iterator[Callable[[int], None]]:
        """Adds the duration of the block to `seconds`. The function that the block gets is called with the
        number of further items, of `total`, that are done."""
        start, done = perf_counter(), 0

        def tell(count: int) -> None:
            nonlocal done
            done += count
            rate = done / (perf_counter() - start)
            self._progress.step(f"{rate:.1f} items/s, {(total - done) / rate:.0f} s left", count)

        try:
            yield tell
        finally:
            self.seconds += perf_counter() - start

    def _generate(self, context: str, settings: dict[str, Any]) -> str:
        if settings.get("do_sample") and settings.get("temperature", 1.0) > 0:
            raise RunFailure("unsupported", "the task samples; only greedy generation is measured here")
        stops = settings.get("until") or []
        stops = [stops] if isinstance(stops, str) else list(stops)
        if self.eot_token_id is not None:
            stops.append(str(self.tokenizer.decode([self.eot_token_id], skip_special_tokens=False)))
        stops = [stop for stop in stops if stop]
        wanted = int(settings.get("max_gen_toks", DEFAULT_NEW_TOKENS))
        room = self.max_length - wanted
        if room < 1:
            lengths = f"generates up to {wanted} tokens, and the model takes {self.max_length} in all"
            raise RunFailure("unsupported", f"the task {lengths}")
        ids = self.tok_encode(context)
        self.truncated += len(ids) > room
        ids = ids[-room:]
        new: list[int] = []
        while len(new) < wanted:
            piece = min(PIECE, wanted - len(new))
            prompt = np.array([ids + new], dtype=np.int64)
            workload = Workload(input_tokens=prompt.shape[1], new_tokens=piece)
            new += self._generator.generate(prompt, workload, "end_to_end").tokens[0].tolist()
            if (count := self._end(new, stops)) is not None:
                new = new[:count]
                break
        text = str(self.tokenizer.decode(new, skip_special_tokens=True))
        return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)]

    def _end(self, new: list[int], stops: list[str]) -> int | None:
        """With how many of the new tokens the text ends, at an id that ends any text or where a stop sequence
        is complete, which a special token may be; None where it goes on. lm-eval's HFLM ends it there."""

        def stopped(count: int) -> bool:
            text = self.tokenizer.decode(new[:count], skip_special_tokens=False)
            return any(stop in text for stop in stops)

        ids = self._generator.vocabulary.end_ids
        ends = [place + 1 for place, token in enumerate(new) if token in ids][:1]
        if stopped(len(new)):
            ends.append(bisect_left(range(len(new)), True, key=stopped))
        return min(ends, default=None)


def _nothing_to_score(context: str, continuation: str) -> RunFailure:
    what = f"{continuation!r} has no token of its own after {context[-20:]!r}"
    return RunFailure("unsupported", f"{what}, so that nothing can be scored")
