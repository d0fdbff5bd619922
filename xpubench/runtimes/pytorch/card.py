"""The device card of stock PyTorch: what the runtime's own generations take with tiny models, whose weights
cost nothing."""

from collections.abc import Callable
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from xpubench.environment import Environment
from xpubench.explanation import DeviceCard, Spread
from xpubench.measure.kept_cards import card_key, chosen_variables, keep_card, kept_card
from xpubench.measure.ledger.processors import Waits
from xpubench.measure.products import product_rates
from xpubench.record import now
from xpubench.runtimes.base import Generator
from xpubench.spec import DTYPE_BYTES, Subject, Workload
from xpubench.weights.load import LoadedWeights

VOCABULARY, SHORT, DEEP = 64, 8, 2048
NEW_TOKENS, ROUNDS = 9, 4
FEW, MANY = 2, 8
# By name: blocks, attention heads, key-value heads, head dim.
SHAPES = {"few": (FEW, 8, 8, 8), "many": (MANY, 8, 8, 8), "wide": (FEW, 16, 4, 64)}
# A card is kept where the process had a processor at this share of the time, and each of its threads at this
# share of the time in which it wanted one: of two threads that share a core, both are busy half of the time.
CPU_SHARE = 0.9
MOST_SHARE = 10.0

CardRows = dict[str, list[list[int]]]


def device_card(
    subject: Subject,
    environment: Environment,
    ceiling_gb_per_s: float,
    load: Callable[[Subject, LoadedWeights], Generator],
    say: Callable[[str], None],
    *,
    onednn: bool,
) -> DeviceCard:
    """The kept card of the subject's device, dtype and options, or one that is measured now, with or without
    oneDNN in the steps of one token, and kept unless the machine was too busy. `load` makes a runtime of a
    model that lies on the device."""
    threads = torch.get_num_threads() if subject.device == "cpu" else None
    options = ", ".join(subject.options.words)
    key = card_key(environment, subject.dtype, threads, options)
    if (kept := kept_card(key)) is not None:
        return kept
    say(f"measuring the device card of {subject.device}, once for this stack")
    started_s, busy_s, waits = perf_counter(), process_time(), Waits()
    with waits.watching():
        rows = _rows(subject, load)
        with torch.backends.mkldnn.flags(enabled=onednn and torch.backends.mkldnn.enabled):
            rates = product_rates(subject.device, subject.dtype)
    share = (process_time() - busy_s) / (perf_counter() - started_s)
    if waits.share is not None:
        share = min(share, waits.share)
    facts = environment.device
    card = DeviceCard(
        source="measured",
        created=now(),
        dtype=subject.dtype,
        device_kind=subject.device,
        device_name=facts.name if facts else None,
        device_memory_bytes=facts.total_memory_bytes if facts else None,
        driver=facts.driver if facts else None,
        threads=threads,
        options=options,
        versions=environment.versions,
        variables=chosen_variables(environment.variables),
        stack=", ".join(f"{name} {environment.versions.get(name)}" for name in ("torch", "transformers")),
        ceiling_gb_per_s=ceiling_gb_per_s,
        asynchronous=subject.device != "cpu",
        product_share=_spread([rate / ceiling_gb_per_s for rate in rates]),
        samples_ns=rows,
        product_gb_per_s=rates,
        **_figures(rows, ceiling_gb_per_s, DTYPE_BYTES[subject.dtype]),
    )
    if share >= CPU_SHARE:
        keep_card(key, card)
    return card


def _rows(subject: Subject, load: Callable[[Subject, LoadedWeights], Generator]) -> CardRows:
    """The next token latencies of each model at a short and of two at a deep context, in rounds, so that the
    machine's drift weighs on all alike."""
    with torch.random.fork_rng():
        runtimes = {
            name: load(subject, LoadedWeights(model=_model(subject, *shape)))
            for name, shape in SHAPES.items()
        }
    visits = [("few", SHORT), ("many", SHORT), ("many", DEEP), ("wide", SHORT), ("wide", DEEP)]
    rows: CardRows = {}
    for round_number in range(1 + ROUNDS):
        for name, depth in visits:
            workload = Workload(input_tokens=depth + 1, new_tokens=NEW_TOKENS)
            prompt_ids = np.arange(depth + 1, dtype=np.int64)[None, :] % VOCABULARY
            runtimes[name].prepare(workload)
            found = runtimes[name].continue_random_cache(prompt_ids, workload)
            assert found is not None
            if round_number:
                times = found.times.iteration().next_token_ns or []
                rows.setdefault(f"{name} {depth}", []).append(times)
    return rows


def _model(subject: Subject, blocks: int, heads: int, kv_heads: int, head_dim: int) -> Any:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=2 * DEEP,
        pad_token_id=0,
    )
    model: Any = LlamaForCausalLM(config)
    return model.to(getattr(torch, subject.dtype)).to(subject.device).eval()


def _figures(rows: CardRows, ceiling_gb_per_s: float, value_bytes: int) -> dict[str, Any]:
    def of_round(name: str, depth: int) -> list[float]:
        return [median(row) for row in rows[f"{name} {depth}"]]

    few, many = of_round("few", SHORT), of_round("many", SHORT)
    blocks = [(more - less) / (MANY - FEW) for less, more in zip(few, many, strict=True)]
    steps = [less - FEW * block for less, block in zip(few, blocks, strict=True)]
    growth = {
        name: [(deep - short) / (SHAPES[name][0] * (DEEP - SHORT)) for short, deep in zip(*both, strict=True)]
        for name in ("many", "wide")
        if (both := (of_round(name, SHORT), of_round(name, DEEP)))
    }
    _, _, kv_heads, head_dim = SHAPES["wide"]
    wide_bytes = 2 * kv_heads * head_dim * value_bytes
    # A cache may read faster than the memory, but where nothing grows, noise is all that is left.
    rates = [min(wide_bytes / max(one, 1e-3) / ceiling_gb_per_s, MOST_SHARE) for one in growth["wide"]]
    return {
        "block_ns": _spread(blocks),
        "step_ns": _spread(steps),
        "attention_ns": _spread(growth["many"]),
        "attention_share": _spread(rates),
    }


def _spread(values: list[float]) -> Spread:
    """Of values that noise may have taken below 0, as which no time or rate counts."""
    kept = [max(one, 0.0) for one in values]
    return Spread(low=min(kept), middle=median(kept), high=max(kept))
