"""OpenVINO GenAI's `LLMPipeline` with token ids as input, timed by its own raw metrics."""

import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np

from xpubench.errors import RunFailure, UserError, unknown
from xpubench.files import expanded
from xpubench.measure.ledger.inside import InsideTimes, explain_inside
from xpubench.measure.ledger.measured import Measured
from xpubench.measure.ledger.processors import Waits
from xpubench.measure.times import TokenTimes
from xpubench.record import SyncPolicy
from xpubench.runtimes.base import Explainer, Generation, Scorer, TokenIds, Verification
from xpubench.runtimes.openvino import ir, steps
from xpubench.runtimes.openvino.options import IR_FILE, GenAiOptions, may_use_npu
from xpubench.runtimes.openvino.recipe import read_recipe
from xpubench.runtimes.openvino.runtime import OpenVinoRuntime
from xpubench.runtimes.openvino.stack import import_openvino, import_optional
from xpubench.spec import Subject, Workload
from xpubench.weights.lora import WEIGHTS_FILE, has_matrices_alone, scale_of

BACKEND, CONTINUOUS_BATCHING = "ATTENTION_BACKEND", "PA"
# The largest value of C++'s size_t.
NO_LIMIT = 2**64 - 1
DEFAULT_ASSISTANT_TOKENS = 5
LOOKUP_NGRAM = 3
# The number of generations whose metrics explain where the time goes.
EXPLAINED = 2
METHOD = f"GenAI's own metrics of {EXPLAINED} generations"
# On an NPU the pipeline is compiled for prompts and answers up to these lengths, unless it is told others.
NPU_LENGTHS = {"MAX_PROMPT_LEN": 1024, "MIN_RESPONSE_LEN": 128}


class GenAiRuntime(OpenVinoRuntime):
    """GenAI's pipeline with continuous batching and the scheduler that it has by default, but without its
    prefix cache, which would already hold the first token of a repeated prompt."""

    scorer: Scorer | None = None
    merges_lora = False
    own_properties = (BACKEND, *NPU_LENGTHS)
    runs_on_npu = True

    def __init__(self, subject: Subject, directory: Path) -> None:
        super().__init__(subject, directory)
        self._genai = import_optional("openvino_genai")
        self._core = ir.core_of(subject, without=self.own_properties)
        model = self._core.read_model(directory / IR_FILE)
        self._weight_bytes, self._step_weight_bytes = ir.weight_sizes(model)
        options = _options_of(subject)
        self._stand_in = ir.stand_in(self._core, options.device, self.asked, model)
        # GenAI takes these lengths only as numbers.
        lengths = {name: int(self.asked[name]) for name in NPU_LENGTHS if name in self.asked}
        arguments = self.asked | lengths
        self._scheduler: Any = None
        if _has_scheduler(options):
            self._scheduler = _scheduler(self._genai, options.scheduler)
            arguments["scheduler_config"] = self._scheduler
        if options.draft_model is not None:
            arguments["draft_model"] = self._genai.draft_model(options.draft_model, options.device)
        if options.prompt_lookup:
            arguments["prompt_lookup"] = True
        if subject.lora is not None:
            adapter = Path(subject.lora)
            weights = self._genai.Adapter(str(adapter / WEIGHTS_FILE))
            arguments["adapters"] = self._genai.AdapterConfig(weights, scale_of(adapter))
        self._drafts = options.draft_model is not None or options.prompt_lookup
        try:
            self._pipeline = self._genai.LLMPipeline(str(directory), options.device, **arguments)
        except RuntimeError as error:
            raise RunFailure("unsupported", f"GenAI: {ir.last_line(error)}") from error

    @classmethod
    def check(cls, subject: Subject) -> None:
        super().check(subject)
        options = _options_of(subject)
        _scheduler(import_optional("openvino_genai"), options.scheduler)
        if options.scheduler and not _has_scheduler(options):
            raise UserError(
                f"GenAI has a scheduler only with {BACKEND}={CONTINUOUS_BATCHING} and not on an NPU; "
                "leave out --ov-scheduler"
            )
        if subject.lora is not None:
            _check_adapter(Path(subject.lora), subject.model)
        for name in options.config.keys() & NPU_LENGTHS.keys():
            if not may_use_npu(options.device):
                raise UserError(f"GenAI has the property {name} only on an NPU; leave it out")
            if not options.config[name].isdecimal():
                raise UserError(f"--ov-config {name} takes a number of tokens, not {options.config[name]!r}")
        if options.draft_model is not None and not (Path(options.draft_model) / IR_FILE).is_file():
            raise UserError(
                f"--draft-model {options.draft_model} is not an OpenVINO IR; xpubench export makes one"
            )

    @classmethod
    def fetch(cls, subject: Subject, say: Callable[[str], None]) -> None:
        if subject.lora is not None and not has_matrices_alone(Path(subject.lora)):
            raise UserError(
                f"the LoRA adapter {subject.lora} holds more than matrices of linear layers, which GenAI "
                "would leave out; --runtime openvino merges it"
            )
        super().fetch(subject, say)

    def prepare(self, workload: Workload) -> None:
        super().prepare(workload)
        if workload.num_beams > 1 and self._drafts:
            raise RunFailure("unsupported", "GenAI drafts tokens only in greedy search; give --greedy")
        if may_use_npu(_options_of(self.subject).device):
            self._check_npu(workload)

    def _check_npu(self, workload: Workload) -> None:
        """Raises RunFailure `unsupported` for a workload that GenAI cannot run on an NPU."""
        if workload.num_beams > 1 or workload.batch_size > 1:
            raise RunFailure(
                "unsupported", "GenAI on an NPU runs one sequence at a time; give --greedy --batch-size 1"
            )
        wanted = dict(zip(NPU_LENGTHS, (workload.input_tokens or 0, workload.new_tokens), strict=True))
        for name, length in wanted.items():
            most = int(self.asked.get(name, NPU_LENGTHS[name]))
            if length > most:
                raise RunFailure(
                    "unsupported",
                    f"GenAI's pipeline on an NPU has {name}={most}; give --ov-config {name}={length}",
                )

    def generate(self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy) -> Generation:
        """Calls the pipeline once. Drafted tokens that were accepted in the same step share its time
        evenly."""
        return self._generated(prompt_ids, workload, sync_policy)[0]

    @property
    def explainer(self) -> Explainer | None:
        """None where tokens are drafted, because a step then gives several tokens."""
        return None if self._drafts else self

    def explain(self, prompt_ids: TokenIds, workload: Workload) -> Measured:
        """The time inside the stack is that of the pipeline's steps without the sampling. Raises RunFailure
        `unsupported` where the prompts take several steps, because the metrics hold only those that gave
        tokens."""
        limit = None if self._scheduler is None else self._scheduler.max_num_batched_tokens
        if limit is not None and prompt_ids.size > limit:
            raise RunFailure(
                "unsupported",
                f"with max_num_batched_tokens={limit} the prompts take several steps, and GenAI's metrics "
                "lack those that give no token",
            )
        waits, generations = Waits(), []
        for _ in range(EXPLAINED):
            with waits.watching():
                made, raw = self._generated(prompt_ids, workload, "every_token")
            taken, sampling = (
                [1e3 * us for us in told] for told in (raw.token_infer_durations, raw.sampling_durations)
            )
            if len(taken) != workload.new_tokens or len(sampling) not in (0, len(taken)):
                raise RunFailure(
                    "unsupported", f"GenAI reports {len(taken)} steps for {workload.new_tokens} tokens"
                )
            inside = [
                step - chosen for step, chosen in zip(taken, sampling or [0.0] * len(taken), strict=True)
            ]
            generations.append(InsideTimes(times=made.times, inside_ns=inside, sampling_ns=sampling or None))
        return explain_inside(METHOD, generations, waits.share)

    def _generated(
        self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy
    ) -> tuple[Generation, Any]:
        """A generation, and the raw metrics that the pipeline reports for it."""
        openvino = import_openvino()
        inputs = self._genai.TokenizedInputs(
            openvino.Tensor(np.ascontiguousarray(prompt_ids)), openvino.Tensor(np.ones_like(prompt_ids))
        )
        config = self._config(workload)
        start_ns = perf_counter_ns()
        output = self._pipeline.generate(inputs, config)
        end_ns = perf_counter_ns()
        raw = output.perf_metrics.raw_metrics
        stamps = steps.token_ns(raw, len(prompt_ids), workload.new_tokens, drafts=self._drafts)
        times = TokenTimes(
            sync_policy=sync_policy,
            start_ns=start_ns,
            token_ns=stamps if sync_policy == "every_token" else [],
            end_ns=end_ns,
        )
        tokens = _tokens(output.tokens, len(prompt_ids), workload)
        drafting = steps.drafting(output) if self._drafts else None
        generation = Generation(tokens=tokens, times=times, logits=None, drafting=drafting)
        return generation, raw

    def verify(self, prompt_ids: TokenIds, workload: Workload) -> Verification:
        tokens = self.generate(prompt_ids, workload, "end_to_end").tokens
        return Verification(tokens=tokens, logits=None, cache=None)

    def kv_value_bytes(self, head_dim: int) -> float:
        if self._stand_in is None:
            return ir.kv_value_bytes(self.subject, self._core, head_dim, ir.plugin_of(self.subject))
        return ir.kv_value_bytes(self.subject, self._stand_in, head_dim)

    def in_effect(self) -> dict[str, Any]:
        return {} if self._stand_in is None else ir.applied(self._stand_in, self.asked)

    def described(self) -> dict[str, Any]:
        scheduler = self._scheduler
        more = {
            "scheduler": None if scheduler is None else scheduler.to_string(),
            "prefix_caching": scheduler is not None and scheduler.enable_prefix_caching,
            "granted": self.in_effect().get("INFERENCE_PRECISION_HINT"),
        }
        return super().described() | more

    def close(self) -> None:
        self._pipeline = self._stand_in = None
        super().close()

    def _config(self, workload: Workload) -> Any:
        config = self._genai.GenerationConfig()
        config.max_new_tokens = workload.new_tokens
        # With min_new_tokens instead, GenAI would forbid the end-of-sequence token, which the PyTorch runtime
        # allows.
        config.ignore_eos = True
        if self.config.get("eos_token_id") is None:
            config.eos_token_id = 0  # GenAI needs one, although it is ignored
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


def _has_scheduler(options: GenAiOptions) -> bool:
    """Whether the pipeline batches continuously, which its scheduler is for."""
    backend = options.config.get(BACKEND, CONTINUOUS_BATCHING)
    return backend == CONTINUOUS_BATCHING and not may_use_npu(options.device)


def _check_adapter(adapter: Path, model: str) -> None:
    """Raises UserError for an adapter that GenAI does not apply as PEFT does, and for an IR that has one."""
    scale_of(adapter)
    kept = read_recipe(expanded(model))
    if kept is not None and (other := kept["recipe"].get("lora")) is not None:
        raise UserError(
            f"the IR {model} has the LoRA adapter {other} merged into its weights; leave out --lora, or give "
            "an IR without one"
        )


def _scheduler(genai: Any, fields: dict[str, str]) -> Any:
    """The SchedulerConfig that GenAI's `LLMPipeline` has by default, without the prefix cache and with these
    fields, whose values are JSON. UserError for an unknown field. The pipeline does not limit the tokens of a
    step, which the class does (`get_latency_oriented_scheduler_config` in GenAI's src/cpp/src/utils.cpp)."""
    config = genai.SchedulerConfig()
    config.max_num_batched_tokens = NO_LIMIT
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


def _tokens(sequences: list[list[int]], batch: int, workload: Workload) -> TokenIds:
    lengths = {len(one) for one in sequences}
    if lengths != {workload.new_tokens} or len(sequences) != batch:
        raise RunFailure(
            "short_output",
            f"GenAI returned {min(lengths, default=0)} new tokens for {len(sequences)} prompts, where "
            f"{workload.new_tokens} for {batch} were asked for",
        )
    return np.array(sequences, dtype=np.int64)
