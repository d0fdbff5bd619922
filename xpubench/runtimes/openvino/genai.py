"""OpenVINO GenAI's `LLMPipeline` on token ids, timed by its own raw metrics."""

import json
from itertools import accumulate
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Self

import numpy as np

from xpubench.errors import RunFailure, UserError, unknown
from xpubench.measure.times import TokenTimes
from xpubench.record import SyncPolicy
from xpubench.runtimes.base import Generation, Scorer, TokenIds, Verification
from xpubench.runtimes.openvino import ir
from xpubench.runtimes.openvino.common import OpenVinoRuntime
from xpubench.runtimes.openvino.options import IR_FILE, GenAiDescription, GenAiOptions
from xpubench.runtimes.openvino.stack import import_openvino, import_optional
from xpubench.runtimes.options import RuntimeDescription
from xpubench.spec import Subject, Workload
from xpubench.weights.lora import WEIGHTS_FILE, scale_of

# GenAI's own names among the properties that LLMPipeline takes.
PIPELINE_PROPERTIES = ("ATTENTION_BACKEND",)
CONTINUOUS_BATCHING = "PA"
DEFAULT_ASSISTANT_TOKENS = 5
LOOKUP_NGRAM = 3


class GenAiRuntime(OpenVinoRuntime):
    """GenAI's pipeline with continuous batching, as it is by default, but without its cache of prefixes: a
    prompt that comes again would find its first token ready."""

    scorer: Scorer | None = None
    merges_lora = False

    def __init__(self, subject: Subject, directory: Path) -> None:
        super().__init__(subject, directory)
        self._genai = import_optional("openvino_genai")
        self._core = ir.core_of(subject, without=PIPELINE_PROPERTIES)
        model = self._core.read_model(directory / IR_FILE)
        self._weight_bytes, self._step_weight_bytes = ir.weight_sizes(model)
        options = _options_of(subject)
        arguments = dict(self.asked)
        self._scheduler: str | None = None
        if arguments.get("ATTENTION_BACKEND", CONTINUOUS_BATCHING) == CONTINUOUS_BATCHING:
            scheduler = _scheduler(self._genai, options.scheduler)
            self._scheduler = scheduler.to_string()
            arguments["scheduler_config"] = scheduler
        if options.draft_model is not None:
            arguments["draft_model"] = self._genai.draft_model(options.draft_model, options.device)
        if options.prompt_lookup:
            arguments["prompt_lookup"] = True
        if subject.lora is not None:
            adapter = Path(subject.lora)
            arguments["adapters"] = self._genai.AdapterConfig(
                self._genai.Adapter(str(adapter / WEIGHTS_FILE)), scale_of(adapter)
            )
        self._drafts = options.draft_model is not None or options.prompt_lookup
        try:
            self._pipeline = self._genai.LLMPipeline(str(directory), options.device, **arguments)
        except RuntimeError as error:
            raise RunFailure("unsupported", f"GenAI: {_last_line(error)}") from error

    @classmethod
    def check(cls, subject: Subject) -> None:
        ir.check(subject, also=PIPELINE_PROPERTIES)
        options = _options_of(subject)
        _scheduler(import_optional("openvino_genai"), options.scheduler)
        if options.draft_model is not None and not (Path(options.draft_model) / IR_FILE).is_file():
            raise UserError(f"--draft-model {options.draft_model} is no IR; xpubench export makes one")

    @classmethod
    def load(cls, subject: Subject) -> Self:
        """Makes the pipeline on the subject's IR, which `fetch` has made."""
        return cls(subject, ir.ir_directory(subject, merge_lora=False))

    def prepare(self, workload: Workload) -> None:
        ir.refuse_static_cache(workload.cache)
        if workload.num_beams > 1 and self._drafts:
            raise RunFailure("unsupported", "GenAI drafts tokens in greedy search alone; give --greedy")

    def generate(self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy) -> Generation:
        """One call of the pipeline. Tokens that were drafted and accepted in a step share its time."""
        openvino = import_openvino()
        inputs = self._genai.TokenizedInputs(
            openvino.Tensor(np.ascontiguousarray(prompt_ids)), openvino.Tensor(np.ones_like(prompt_ids))
        )
        config = self._config(workload)
        start_ns = perf_counter_ns()
        output = self._pipeline.generate(inputs, config)
        end_ns = perf_counter_ns()
        stamps = _stamps_ns(output.perf_metrics.raw_metrics, len(prompt_ids), start_ns)
        if len(stamps) != workload.new_tokens:
            raise RunFailure(
                "unsupported",
                f"GenAI's metrics tell of {len(stamps)} tokens where {workload.new_tokens} are new",
            )
        return Generation(
            tokens=_tokens(output.tokens, len(prompt_ids), workload),
            times=TokenTimes(
                sync_policy=sync_policy,
                start_ns=start_ns,
                token_ns=stamps if sync_policy == "every_token" else [],
                end_ns=end_ns,
            ),
        )

    def verify(self, prompt_ids: TokenIds, workload: Workload) -> Verification:
        tokens = self.generate(prompt_ids, workload, "end_to_end").tokens
        return Verification(tokens=tokens, logits_finite=None, cache=None, cache_positions=None)

    def kv_value_bytes(self, head_dim: int) -> float:
        device = ir.options_of(self.subject).device
        return ir.kv_value_bytes(self.subject, self._core, head_dim, device)

    def describe(self) -> RuntimeDescription:
        # The pipeline does not show its compiled model: what was applied cannot be read back.
        return GenAiDescription(
            **self.described(),
            applied=None,
            scheduler=self._scheduler,
            prefix_caching=self._caches(),
        )

    def doubts(self) -> list[str]:
        return ir.doubts(self.subject, self.asked, None)

    def close(self) -> None:
        self._pipeline = None
        self._torch.end()

    def _caches(self) -> bool:
        return (
            json.loads(_options_of(self.subject).scheduler.get("enable_prefix_caching", "false").lower())
            is True
        )

    def _config(self, workload: Workload) -> Any:
        config = self._genai.GenerationConfig()
        config.max_new_tokens = workload.new_tokens
        # No minimum: that would forbid the token that ends a sequence, where PyTorch's runtime allows it.
        config.ignore_eos = True
        if self.config.get("eos_token_id") is None:
            config.eos_token_id = 0  # GenAI takes no model without one; it is ignored
        config.apply_chat_template = False
        config.do_sample = False
        config.num_beams = workload.num_beams
        config.num_return_sequences = 1
        if self._drafts:
            options = _options_of(self.subject)
            config.num_assistant_tokens = options.num_assistant_tokens or DEFAULT_ASSISTANT_TOKENS
            if options.prompt_lookup:
                config.max_ngram_size = LOOKUP_NGRAM
        return config


def _options_of(subject: Subject) -> GenAiOptions:
    assert isinstance(subject.options, GenAiOptions)
    return subject.options


def _scheduler(genai: Any, fields: dict[str, str]) -> Any:
    """A SchedulerConfig with those fields, their values as JSON. UserError for an unknown one."""
    config = genai.SchedulerConfig()
    config.enable_prefix_caching = False
    known = [name for name in dir(config) if not name.startswith("_") and name != "to_string"]
    for name, text in fields.items():
        if name not in known:
            raise unknown("field of GenAI's SchedulerConfig", name, known)
        try:
            setattr(config, name, json.loads(text.lower()))
        except (ValueError, TypeError) as error:
            raise UserError(f"--ov-scheduler {name}={text} is not a value that GenAI takes") from error
    return config


def _stamps_ns(raw: Any, batch: int, start_ns: int) -> list[int]:
    """The moment of each new token, from the raw metrics: microseconds to the first token, then an entry for
    each later token of each sequence, which is its step's time over the step's tokens of all sequences."""
    shares = raw.m_durations
    intervals = [sum(shares[place : place + batch]) for place in range(0, len(shares), batch)]
    return [start_ns + round(us * 1e3) for us in accumulate([raw.m_times_to_first_token[0], *intervals])]


def _tokens(sequences: list[list[int]], batch: int, workload: Workload) -> TokenIds:
    lengths = {len(one) for one in sequences}
    if lengths != {workload.new_tokens} or len(sequences) != batch:
        raise RunFailure(
            "short_output",
            f"GenAI returned {min(lengths, default=0)} new tokens for {len(sequences)} prompts, "
            f"asked were {workload.new_tokens} for {batch}",
        )
    return np.array(sequences, dtype=np.int64)


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
