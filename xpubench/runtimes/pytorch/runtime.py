"""Stock PyTorch on xpu, cuda and cpu: transformers' own `generate`, observed and never patched."""

import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import Any, Self

import msgspec
import torch
import transformers
from transformers import LogitsProcessorList, StoppingCriteriaList

from xpubench.catalog import find_model
from xpubench.environment import Environment
from xpubench.errors import RunFailure, UserError, unknown
from xpubench.explanation import DeviceCard
from xpubench.files import expanded
from xpubench.measure.clock import LogitsWatch, TokenClock
from xpubench.measure.device import synchronizer
from xpubench.measure.ledger.measured import Measured
from xpubench.measure.times import NOT_FINITE, TokenTimes
from xpubench.record import SyncPolicy
from xpubench.runtimes.base import (
    Explainer,
    Generation,
    Loader,
    Origin,
    Scorer,
    TokenIds,
    Verification,
    not_as_asked,
)
from xpubench.runtimes.options import RuntimeDescription
from xpubench.runtimes.pytorch.compiled import compile_counters, compiled_steps
from xpubench.runtimes.pytorch.decode import DecodeWithoutOneDnn, Forward, onednn_bfloat16
from xpubench.runtimes.pytorch.explain import explained_by_profiler
from xpubench.runtimes.pytorch.generate import (
    can_stay_eager,
    generate_arguments,
    new_tokens_of,
    plain_generation_config,
)
from xpubench.runtimes.pytorch.options import PyTorchOptions
from xpubench.runtimes.pytorch.random_cache import CACHE_ARGUMENT, cache_of, random_cache
from xpubench.runtimes.pytorch.scoring import TransformersScorer
from xpubench.runtimes.pytorch.weights import step_weight_bytes, weight_bytes, weights_and_constants
from xpubench.runtimes.vocabulary import Vocabulary
from xpubench.spec import DTYPE_BYTES, Quantization, Subject, Workload
from xpubench.weights.int4.kernels import bit_sum, tensor_class
from xpubench.weights.int4.recipes import calibrated_description, read_description
from xpubench.weights.load import LoadedWeights, check_layout, load_weights
from xpubench.weights.lora import check_adapter
from xpubench.weights.source import source_of


class PyTorchRuntime(TransformersScorer, Loader):
    """A transformers model on a torch device, eager or through `torch.compile`."""

    def __init__(self, subject: Subject, loaded: LoadedWeights) -> None:
        self.subject = subject
        self.loaded = loaded
        self.model = model = loaded.model
        self.vocabulary = Vocabulary(
            subject.model,
            model.config.get_text_config().vocab_size,
            loaded.tokenizer,
            lambda name: getattr(model.config, name, None),
            ending=loaded.ending,
        )
        self._synchronize = synchronizer(subject.device)
        self._eager_forward: Forward | None = None
        self._decode: DecodeWithoutOneDnn | None = None
        self._weight_bytes, self._step_weight_bytes = self.weight_sizes()

    @property
    def scorer(self) -> Scorer | None:
        return self

    @property
    def explainer(self) -> Explainer | None:
        return self

    @property
    def elsewhere(self) -> str | None:
        return None

    @property
    def rounding(self) -> str:
        return self.computes_in

    @property
    def computes_in(self) -> str:
        """The dtype of the activations and of the cache, which the kernels of some checkpoints choose."""
        applied = self.loaded.quantization
        told = None if applied is None else applied.compute_dtype
        return told if told in DTYPE_BYTES else self.subject.dtype

    @classmethod
    def fetch(cls, subject: Subject, say: Callable[[str], None]) -> None:
        if subject.weights == "pretrained":
            say(f"looking for {subject.weights_from}")
            source = source_of(subject)
            if subject.lora is not None:
                check_adapter(Path(subject.lora), source.config)

    @classmethod
    def card(
        cls,
        subject: Subject,
        environment: Environment,
        ceiling_gb_per_s: float,
        say: Callable[[str], None],
    ) -> DeviceCard | None:
        # Quantized products and compiled steps are other kernels, and a rank waits for others.
        if subject.quantization is not None or subject.tp_size > 1 or _backend(subject) is not None:
            return None
        from xpubench.runtimes.pytorch.card import device_card

        onednn = _has_onednn_decode(subject)
        return device_card(subject, environment, ceiling_gb_per_s, cls.of_weights, say, onednn=onednn)

    @classmethod
    def load(cls, subject: Subject) -> Self:
        runtime = cls.of_weights(subject, cls.weights(subject))
        runtime.optimize()
        return runtime

    @classmethod
    def of_weights(cls, subject: Subject, loaded: LoadedWeights) -> Self:
        """The runtime of a model that lies on the device, before it is optimized."""
        runtime = cls(subject, loaded)
        runtime.model.generation_config = plain_generation_config(runtime.model)
        return runtime

    @classmethod
    def origin(cls, subject: Subject) -> Origin | None:
        kept = calibrated_description(expanded(subject.model))
        if kept is None:
            return super().origin(subject)
        return Origin(model=kept.source, revision=kept.revision, lora=subject.lora)

    @classmethod
    def check(cls, subject: Subject) -> None:
        known = find_model(subject.model)
        if subject.weights == "dummy" and known is not None:
            known.native_config()
        if subject.quantization is not None:
            cls.check_quantization(subject, subject.quantization)
        elif found := read_description(Path(subject.model)):
            raise UserError(
                f"{subject.model} is an INT4 checkpoint; "
                f"run it with -m {found.source} --woq --woq_checkpoint_path {subject.model}"
            )
        if (backend := _backend(subject)) is not None:
            backends = torch.compiler.list_backends(exclude_tags=())
            if backend not in backends:
                raise unknown("torch.compile backend", backend, backends)

    @classmethod
    def check_quantization(cls, subject: Subject, recipe: Quantization) -> None:
        """UserError or RunFailure `unsupported` when this machine or the model does not fit the recipe."""
        tensor_class(subject.device)
        check_layout(subject, recipe)

    @classmethod
    def weights(cls, subject: Subject) -> LoadedWeights:
        """The subject's model on its device."""
        return load_weights(subject)

    def weight_sizes(self) -> tuple[int, int]:
        """Bytes of all weights, and of those that one decoding step reads."""
        return weight_bytes(self.model.modules()), step_weight_bytes(self.model)

    def optimize(self) -> None:
        """Changes the loaded model before it runs: stock PyTorch leaves it as it is."""

    def synchronize(self) -> None:
        """Waits until every device that runs the model is idle."""
        self._synchronize()

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        with torch.inference_mode():
            yield

    def prepare(self, workload: Workload) -> None:
        # transformers keeps the largest static cache so far for later calls, so that a small shape would pay
        # for a large one that ran before it.
        kept = [name for name in ("_cache", "_previous_max_cache_length") if hasattr(self.model, name)]
        for name in kept:
            delattr(self.model, name)
        if kept:
            _free(self.subject.device)
        if workload.cache == "static" and self.subject.device == "cuda" and not can_stay_eager():
            raise RunFailure(
                "unsupported",
                f"transformers {transformers.__version__} always compiles the steps of a static cache on "
                "cuda; install a later one",
            )
        self._eager_forward = forward = self._eager_forward or self.model.forward
        if (backend := _backend(self.subject)) is not None:
            torch.compiler.reset()
            forward = compiled_steps(
                forward, backend=backend, device=self.subject.device, cache=workload.cache
            )
        if not _has_onednn_decode(self.subject):
            forward = self._decode = DecodeWithoutOneDnn(forward)
        if forward is not self._eager_forward:
            self.model.forward = forward

    def generate(self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy) -> Generation:
        return self.timed(prompt_ids, workload, sync_policy, TokenClock(self._synchronize))

    def continue_random_cache(self, prompt_ids: TokenIds, workload: Workload) -> Generation | None:
        # A generation from the first token alone shows the shapes of the model's cache.
        shortest = msgspec.structs.replace(workload, cache="dynamic", new_tokens=2)
        _, output = self.generated(prompt_ids[:, :1], shortest)
        with self.inference():
            cache = random_cache(self.model.config, cache_of(output), prompt_ids.shape[1] - 1, workload)
        return self.timed(prompt_ids, workload, "every_token", TokenClock(self._synchronize), cache)

    def explain(self, prompt_ids: TokenIds, workload: Workload) -> Measured:
        def timed(clock: TokenClock) -> TokenTimes:
            return self.timed(prompt_ids, workload, "every_token", clock).times

        # Its small model is a Llama, whose import takes seconds that runs without --explain do not need.
        from xpubench.runtimes.pytorch.event_cost import event_cost_ns

        return explained_by_profiler(timed, self.subject.device, event_cost_ns(self.subject.device))

    def timed(
        self,
        prompt_ids: TokenIds,
        workload: Workload,
        sync_policy: SyncPolicy,
        clock: TokenClock,
        cache: Any = None,
    ) -> Generation:
        """Generates, and under the policy `every_token` stamps the tokens with the clock. The `cache` of a
        generation that goes on holds all tokens of the prompt but the last one."""
        input_ids = self.on_device(prompt_ids)
        stamped = sync_policy == "every_token"
        seam: contextlib.AbstractContextManager[dict[str, Any]] = contextlib.nullcontext({})
        if stamped:
            seam = self.stamped(clock, workload)
        watch = LogitsWatch()
        with self.inference():
            with seam as more:
                processors = LogitsProcessorList([watch])
                arguments = self._arguments(input_ids, workload, logits_processor=processors, **more)
                if cache is not None:
                    arguments.pop("cache_implementation", None)
                    arguments[CACHE_ARGUMENT] = cache
                self.synchronize()
                start_ns = clock.begin()
                output = self.model.generate(**arguments)
            # The seam may stamp the last token when `generate` has returned.
            self._synchronize()
            end_ns = perf_counter_ns()
        logits = watch.facts()
        if logits is not None and not logits.finite:  # Such a beam search may also end too early.
            raise RunFailure("numerics", NOT_FINITE)
        tokens = new_tokens_of(output, prompt_ids, workload)
        stamps = clock.stamps_ns
        if stamped and len(stamps) != workload.new_tokens:
            raise RunFailure(
                "unsupported",
                f"the stopping criteria were called {len(stamps)} times for {workload.new_tokens} tokens: "
                "this generation loop cannot be timed token by token",
            )
        times = TokenTimes(sync_policy=sync_policy, start_ns=start_ns, token_ns=stamps, end_ns=end_ns)
        return Generation(tokens=tokens, times=times, logits=logits)

    def generated(self, prompt_ids: TokenIds, workload: Workload, **more: Any) -> tuple[TokenIds, Any]:
        arguments = self._arguments(self.on_device(prompt_ids), workload, **more)
        with self.inference():
            output = self.model.generate(**arguments, return_dict_in_generate=True)
        # IPEX's own beam search returns a bare tensor, whatever it is asked for.
        return new_tokens_of(getattr(output, "sequences", output), prompt_ids, workload), output

    def _arguments(self, input_ids: torch.Tensor, workload: Workload, **more: Any) -> dict[str, Any]:
        return generate_arguments(input_ids, workload) | more

    @contextlib.contextmanager
    def stamped(self, clock: TokenClock, workload: Workload) -> Iterator[dict[str, Any]]:
        """Within the block, `generate` with the yielded arguments makes the clock stamp each token."""
        yield {"stopping_criteria": StoppingCriteriaList([clock])}

    def verify(self, prompt_ids: TokenIds, workload: Workload) -> Verification:
        watch = LogitsWatch()
        tokens, output = self.generated(prompt_ids, workload, logits_processor=LogitsProcessorList([watch]))
        cache = cache_of(output)
        self.check_cache(workload, cache)
        return Verification(
            tokens=tokens,
            logits=watch.facts(),
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

    def kv_value_bytes(self, head_dim: int) -> float:
        return DTYPE_BYTES[self.computes_in]

    def describe(self) -> RuntimeDescription:
        return self.subject.options.description(**self.described())

    def described(self) -> dict[str, Any]:
        """The fields of the description."""
        kept = calibrated_description(expanded(self.subject.model))
        return {
            "model_class": type(self.model).__name__,
            "attention": getattr(self.model.config, "_attn_implementation", None),
            "weight_bytes": self._weight_bytes,
            "step_weight_bytes": self._step_weight_bytes,
            "compile": None if _backend(self.subject) is None else compile_counters(),
            "steps_without_onednn": None if self._decode is None else self._decode.steps,
            "onednn_bfloat16": onednn_bfloat16() if self.subject.device == "cpu" else None,
            "revision": self.loaded.revision,
            "quantization": self.loaded.quantization,
            "calibrated": None if kept is None else kept.recipe.title,
            "source": None if kept is None else kept.source,
        }

    def doubts(self) -> list[str]:
        recipe, applied = self.subject.quantization, self.loaded.quantization
        doubts = list(self.loaded.doubts)
        if recipe is None or applied is None:
            asked = {"compute_dtype": self.subject.dtype}
            return doubts + not_as_asked(asked, msgspec.to_builtins(applied) or {}, *asked)
        known = find_model(self.subject.model)
        if not (known and known.int4):
            doubts.append(f"{self.subject.model} is not validated for INT4")
        asked, told = msgspec.to_builtins(recipe), msgspec.to_builtins(applied)
        doubts += not_as_asked(asked, told, "weight_dtype", "compute_dtype")
        if applied.refused:
            doubts.append(
                f"{len(applied.refused)} matrices that the INT4 kernel does not take stay in high precision, "
                f"first {applied.refused[0]}"
            )
        return doubts + self.doubts_of_kernel()

    def doubts_of_kernel(self) -> list[str]:
        """Warnings about the INT4 kernel on this device."""
        if self.subject.device == "cpu" and self.subject.dtype == "float32":
            return ["the CPU's INT4 kernel is slow in float32; bfloat16 is the one to use"]
        return []

    def checksum(self) -> int | None:
        with torch.inference_mode():
            return sum(map(bit_sum, weights_and_constants(self.model)))

    def close(self) -> None:
        self.model = None
        _free(self.subject.device)


def _backend(subject: Subject) -> str | None:
    return subject.options.torch_compile if isinstance(subject.options, PyTorchOptions) else None


def _has_onednn_decode(subject: Subject) -> bool:
    return not isinstance(subject.options, PyTorchOptions) or subject.options.onednn_decode


def _cache_positions(cache: Any) -> int | None:
    """The number of positions in a static cache; None for a cache that grows."""
    # These are the names in transformers 5 and 4.
    read = getattr(cache, "get_max_cache_shape", None) or getattr(cache, "get_max_length", None)
    positions = read() if read else None
    return positions if isinstance(positions, int) and positions > 0 else None


def _free(device: str) -> None:
    gc.collect()
    if device != "cpu":
        torch.get_device_module(device).empty_cache()
