"""Stock PyTorch on xpu, cuda and cpu: transformers' own `generate`, observed and never patched."""

import contextlib
import gc
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Self

import msgspec
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from xpubench.catalog import find_model
from xpubench.errors import RunFailure, UserError, unknown
from xpubench.failures import is_out_of_memory
from xpubench.measure.clock import LogitsTracer, LogitsWatch, TokenClock
from xpubench.measure.device import TorchDevice, available_devices, synchronizer
from xpubench.measure.times import TokenTimes
from xpubench.record import SyncPolicy
from xpubench.runtimes.base import (
    Device,
    Generation,
    Logits,
    Origin,
    Quantizer,
    Rows,
    Scorer,
    TokenIds,
    Verification,
)
from xpubench.runtimes.options import RuntimeDescription
from xpubench.runtimes.pytorch.compiled import Forward, compile_counters, compiled_steps
from xpubench.runtimes.pytorch.options import PyTorchOptions
from xpubench.runtimes.registry import options_class
from xpubench.runtimes.vocabulary import Vocabulary
from xpubench.spec import DTYPE_BYTES, Quantization, Subject, Workload
from xpubench.weights.int4.kernels import Int8Embedding, stored_bytes, tensor_class
from xpubench.weights.int4.recipes import read_description
from xpubench.weights.load import LoadedWeights, load_weights
from xpubench.weights.lora import check_adapter
from xpubench.weights.source import read_config, source_of

# The output head turns at most this many rows into logits at once: 512 rows of 150,000 float32 logits take
# 0.3 GB.
ROWS_AT_ONCE = 512


class PyTorchRuntime:
    """A transformers model on a torch device, eager or through `torch.compile`."""

    def __init__(self, subject: Subject, loaded: LoadedWeights) -> None:
        self.subject = subject
        self.loaded = loaded
        model = loaded.model
        self.model = model
        self.vocabulary = Vocabulary(
            subject.model,
            model.config.get_text_config().vocab_size,
            loaded.tokenizer,
            lambda name: getattr(model.config, name, None),
        )
        self._synchronize = synchronizer(subject.device)
        self._eager_forward: Forward | None = None
        self._weight_bytes, self._step_weight_bytes = self.weight_sizes()

    @classmethod
    def set_up(cls) -> None:
        """Nothing."""

    @classmethod
    def first_device(cls) -> str:
        return available_devices()[0]

    @classmethod
    def device(cls, subject: Subject) -> Device:
        return TorchDevice(subject.device)

    @classmethod
    def origin(cls, subject: Subject) -> Origin | None:
        return Origin(model=subject.model, revision=subject.revision, lora=subject.lora)

    @classmethod
    def quantizer(cls) -> Quantizer | None:
        return None

    @property
    def scorer(self) -> Scorer | None:
        return self

    @classmethod
    def model_config(cls, subject: Subject) -> dict[str, Any]:
        return read_config(
            subject.weights_from, revision=subject.revision, trust_remote_code=subject.trust_remote_code
        )

    @classmethod
    def fetch(cls, subject: Subject, say: Callable[[str], None]) -> None:
        if subject.weights == "pretrained":
            say(f"looking for {subject.weights_from}")
            source = source_of(subject)
            if subject.lora is not None:
                check_adapter(Path(subject.lora), source.config)

    @classmethod
    def load(cls, subject: Subject) -> Self:
        """Loads, optimizes and, where asked, marks the model for compilation."""
        runtime = cls(subject, cls.weights(subject))
        runtime.model.generation_config = plain_generation_config(runtime.model)
        runtime.optimize()
        return runtime

    @classmethod
    def check(cls, subject: Subject) -> None:
        """UserError when the subject asks for what is not there, before anything is loaded."""
        known = find_model(subject.model)
        if subject.weights == "dummy" and known is not None:
            known.native_config()
        if subject.quantization is None:
            _check_unquantized(subject.model)
        else:
            cls.check_quantization(subject, subject.quantization)
        if (backend := _backend(subject)) is not None:
            backends = torch.compiler.list_backends(exclude_tags=())
            if backend not in backends:
                raise unknown("torch.compile backend", backend, backends)

    @classmethod
    def check_quantization(cls, subject: Subject, recipe: Quantization) -> None:
        """UserError when the recipe cannot be had here."""
        tensor_class(subject.device)

    @classmethod
    def weights(cls, subject: Subject) -> LoadedWeights:
        """The subject's model on its device."""
        return load_weights(subject)

    def weight_sizes(self) -> tuple[int, int]:
        """Bytes of all weights, and of those that one decoding step reads."""
        stored = sum(stored_bytes(parameter) for parameter in self.model.parameters())
        return stored, _step_weight_bytes(self.model)

    def optimize(self) -> None:
        """What is done to the loaded model before it runs: here nothing."""

    def synchronize(self) -> None:
        """Waits until all that runs the model has nothing left to do."""
        self._synchronize()

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """The contexts in which the model runs."""
        with torch.inference_mode():
            yield

    def prepare(self, workload: Workload) -> None:
        # transformers keeps the largest static cache so far for later calls, which would make a small
        # shape pay for a large one that ran before it.
        for kept in ("_cache", "_previous_max_cache_length"):
            if hasattr(self.model, kept):
                delattr(self.model, kept)
        _free(self.subject.device)
        if workload.cache == "static" and self.subject.device == "cuda" and not _can_stay_eager():
            raise RunFailure(
                "unsupported",
                f"transformers {transformers.__version__} compiles a static cache's steps by itself on "
                "cuda; install a later one",
            )
        if (backend := _backend(self.subject)) is not None:
            self._eager_forward = self._eager_forward or self.model.forward
            torch.compiler.reset()
            self.model.forward = compiled_steps(
                self._eager_forward,
                backend=backend,
                device=self.subject.device,
                cache=workload.cache,
            )

    def generate(self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy) -> Generation:
        input_ids = torch.from_numpy(prompt_ids).to(self.model.device)
        clock = TokenClock(self._synchronize)
        stamped: contextlib.AbstractContextManager[dict[str, Any]] = contextlib.nullcontext({})
        if sync_policy == "every_token":
            stamped = self.stamped(clock, workload)
        with self.inference(), stamped as more:
            arguments = self._arguments(input_ids, workload, **more)
            self.synchronize()
            start_ns = perf_counter_ns()
            output = self.model.generate(**arguments)
            self._synchronize()
            end_ns = perf_counter_ns()
        tokens = _new_tokens(output, prompt_ids, workload)
        if sync_policy == "every_token" and len(clock.stamps_ns) != workload.new_tokens:
            raise RunFailure(
                "unsupported",
                f"the stopping criteria were called {len(clock.stamps_ns)} times for {workload.new_tokens} "
                "tokens: this generation loop cannot be timed token by token",
            )
        return Generation(
            tokens=tokens,
            times=TokenTimes(
                sync_policy=sync_policy, start_ns=start_ns, token_ns=clock.stamps_ns, end_ns=end_ns
            ),
        )

    @contextlib.contextmanager
    def stamped(self, clock: TokenClock, workload: Workload) -> Iterator[dict[str, Any]]:
        """Within it, `generate` with the yielded arguments has the clock stamp each token."""
        yield {"stopping_criteria": StoppingCriteriaList([clock])}

    def verify(self, prompt_ids: TokenIds, workload: Workload) -> Verification:
        input_ids = torch.from_numpy(prompt_ids).to(self.model.device)
        watch = LogitsWatch()
        with self.inference():
            output = self.model.generate(
                **self._arguments(input_ids, workload, logits_processor=LogitsProcessorList([watch])),
                return_dict_in_generate=True,
            )
        cache = getattr(output, "past_key_values", None)
        self.check_cache(workload, cache)
        return Verification(
            # IPEX's own beam search returns a bare tensor, whatever it is asked for.
            tokens=_new_tokens(getattr(output, "sequences", output), prompt_ids, workload),
            logits_finite=watch.all_finite,
            cache=None if cache is None else type(cache).__name__,
            cache_positions=_cache_positions(cache),
        )

    def check_cache(self, workload: Workload, cache: Any) -> None:
        """RunFailure `unsupported` when the model used another cache than the static one asked for."""
        if workload.cache == "static" and cache is not None and "Static" not in type(cache).__name__:
            raise RunFailure(
                "unsupported",
                f"{type(self.model).__name__} ignored the static cache and used {type(cache).__name__}; "
                "leave out --use-static-cache",
            )

    def trace(
        self, prompt_ids: TokenIds, workload: Workload, forced: TokenIds | None
    ) -> tuple[TokenIds, Logits]:
        input_ids = torch.from_numpy(prompt_ids).to(self.model.device)
        steps = None if forced is None else torch.from_numpy(forced).to(self.model.device)
        tracer = LogitsTracer(steps)
        with self.inference():
            output = self.model.generate(
                **self._arguments(input_ids, workload, logits_processor=LogitsProcessorList([tracer]))
            )
        logits: Logits = np.stack(tracer.logits, axis=1)
        return _new_tokens(output, prompt_ids, workload), logits

    def target_logprobs(
        self, token_ids: TokenIds, rows: Rows, targets: TokenIds
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        logprobs, best, start = [], [], 0
        with self.inference():
            wanted = torch.from_numpy(targets).to(self.model.device)
            for logits in self._row_logits(token_ids, rows):
                part = wanted[start : start + len(logits)]
                chosen = logits.gather(-1, part[:, None])[:, 0]
                logprobs.append((chosen - logits.logsumexp(-1)).cpu().numpy())
                best.append((logits.argmax(-1) == part).cpu().numpy())
                start += len(logits)
        return np.concatenate(logprobs), np.concatenate(best)

    def _row_logits(self, token_ids: TokenIds, rows: Rows) -> Iterator[torch.Tensor]:
        """Float32 logits of the chosen positions, in chunks. Where head and body can be told apart, the head
        sees those positions alone: over a long prompt it costs as much as several layers."""
        input_ids = torch.from_numpy(token_ids).to(self.model.device)
        chosen = torch.from_numpy(rows).to(self.model.device)
        if self.scores_rows_alone:
            body, head = self.model.base_model, self.model.get_output_embeddings()
            hidden = body(input_ids=input_ids, use_cache=False).last_hidden_state[chosen]
            for part in hidden.split(ROWS_AT_ONCE):
                # Sharded heads take a batch alone.
                yield head(part[None])[0].float()
        else:
            logits = self._all_logits(input_ids)[chosen]
            for part in logits.split(ROWS_AT_ONCE):
                yield part.float()

    def _all_logits(self, input_ids: torch.Tensor) -> torch.Tensor:
        output = self.model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids))
        logits: torch.Tensor = output["logits"] if isinstance(output, dict) else output[0]
        return logits

    @cached_property
    def scores_rows_alone(self) -> bool:
        """Whether the logits are the output head over the body's hidden states and nothing else, which is
        tried out: some models scale or cap them, and IPEX and remote code may hide the parts."""
        input_ids = torch.arange(8, device=self.model.device)[None] % self.vocabulary.size
        try:
            with self.inference():
                body, head = self.model.base_model, self.model.get_output_embeddings()
                apart = head(body(input_ids=input_ids, use_cache=False).last_hidden_state).float()
                whole = self._all_logits(input_ids).float()
        except (AttributeError, TypeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            return False
        return apart.shape == whole.shape and bool(torch.allclose(apart, whole, rtol=1e-3, atol=1e-3))

    def kv_value_bytes(self, head_dim: int) -> float:
        return DTYPE_BYTES[self.subject.dtype]

    def describe(self) -> RuntimeDescription:
        return options_class(self.subject.runtime).description(**self.described())

    def described(self) -> dict[str, Any]:
        """The fields of the description."""
        return {
            "model_class": type(self.model).__name__,
            "attention": getattr(self.model.config, "_attn_implementation", None),
            "weight_bytes": self._weight_bytes,
            "step_weight_bytes": self._step_weight_bytes,
            "compile": None if _backend(self.subject) is None else compile_counters(),
            "revision": self.loaded.revision,
            "quantization": self.loaded.quantization,
        }

    def doubts(self) -> list[str]:
        recipe, applied = self.subject.quantization, self.loaded.quantization
        if recipe is None or applied is None:
            return []
        doubts = []
        known = find_model(self.subject.model)
        if known is None or not known.int4:
            doubts.append(f"{self.subject.model} is not validated for INT4")
        doubts += not_as_asked(
            msgspec.to_builtins(recipe), msgspec.to_builtins(applied), "weight_dtype", "compute_dtype"
        )
        if applied.refused:
            doubts.append(
                f"{len(applied.refused)} matrices that the INT4 kernel does not take stay in high precision, "
                f"first {applied.refused[0]}"
            )
        return doubts + self.doubts_of_kernel()

    def doubts_of_kernel(self) -> list[str]:
        """What to doubt of the INT4 kernel on this device."""
        if self.subject.device == "cpu" and self.subject.dtype == "float32":
            return ["the CPU's INT4 kernel is slow in float32; bfloat16 is the one to use"]
        return []

    def close(self) -> None:
        self.model = None
        _free(self.subject.device)

    def _arguments(self, input_ids: torch.Tensor, workload: Workload, **more: Any) -> dict[str, Any]:
        arguments = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "do_sample": False,
            "num_beams": workload.num_beams,
            "max_new_tokens": workload.new_tokens,
            "min_new_tokens": workload.new_tokens,
            "use_cache": True,
        }
        if workload.cache == "static":
            arguments["cache_implementation"] = "static"
            # Later versions compile by themselves on accelerators; compiling is --torch-compile's to ask.
            if _can_stay_eager():
                arguments["disable_compile"] = True
        return arguments | more


def not_as_asked(asked: dict[str, Any], applied: dict[str, Any], *names: str) -> list[str]:
    """A line for each setting that was asked for and is applied otherwise."""
    return [
        f"{name}: {asked[name]} was asked, {applied[name]} is applied"
        for name in names
        if asked.get(name) is not None and applied.get(name) not in (None, asked[name])
    ]


def _backend(subject: Subject) -> str | None:
    """The backend of torch.compile, None where the model runs eagerly."""
    return subject.options.torch_compile if isinstance(subject.options, PyTorchOptions) else None


def _can_stay_eager() -> bool:
    return hasattr(GenerationConfig(), "disable_compile")


def _check_unquantized(model: str) -> None:
    if found := read_description(Path(model)):
        raise UserError(
            f"{model} is an INT4 checkpoint; "
            f"run it with -m {found.source} --woq --woq_checkpoint_path {model}"
        )


def plain_generation_config(model: Any) -> GenerationConfig:
    """No end-of-sequence token, so that every length is reached, and none of the checkpoint's sampling
    or penalty settings, so that greedy is greedy."""
    config = model.config
    pad = config.pad_token_id if getattr(config, "pad_token_id", None) is not None else 0
    return GenerationConfig(bos_token_id=getattr(config, "bos_token_id", None), pad_token_id=pad)


def _new_tokens(sequences: torch.Tensor, prompt_ids: TokenIds, workload: Workload) -> TokenIds:
    batch, length = prompt_ids.shape
    tokens: TokenIds = sequences[:, length:].cpu().numpy().astype(np.int64)
    if tokens.shape != (batch, workload.new_tokens):
        raise RunFailure(
            "short_output",
            f"generate returned {tokens.shape[1]} new tokens for {tokens.shape[0]} prompts, "
            f"asked were {workload.new_tokens} for {batch}",
        )
    return tokens


def _cache_positions(cache: Any) -> int | None:
    """The positions that a static cache has room for; None of a cache that grows."""
    # The name in transformers 4 and in 5.
    for name in ("get_max_cache_shape", "get_max_length"):
        if hasattr(cache, name):
            positions = getattr(cache, name)()
            return positions if isinstance(positions, int) and positions > 0 else None
    return None


def _step_weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all parameters outside embedding tables, of which a step reads a row a sequence. A table
    that is tied to the output head counts once, as the head's."""
    # By identity: torchao's tensors cannot be compared.
    read = {
        id(parameter): parameter
        for module in model.modules()
        if not isinstance(module, torch.nn.Embedding | Int8Embedding)
        for parameter in module.parameters(recurse=False)
    }
    return sum(stored_bytes(parameter) for parameter in read.values())


def _free(device: str) -> None:
    gc.collect()
    if device != "cpu":
        torch.get_device_module(device).empty_cache()
