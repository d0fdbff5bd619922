"""llama.cpp on a GGUF, with this project's own greedy loop."""

import ctypes
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, Self

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from xpubench.catalog import SMOLLM2
from xpubench.errors import RunFailure, UserError
from xpubench.measure.device import available_devices
from xpubench.measure.ledger.measured import Measured
from xpubench.measure.logits import LogitsSamples
from xpubench.measure.rounding import UNIT_ROUNDOFF
from xpubench.measure.times import TokenTimes
from xpubench.record import SyncPolicy, WeightsFingerprint
from xpubench.runtimes.base import (
    Device,
    Explainer,
    Generation,
    Generator,
    Loader,
    Logits,
    Origin,
    Rows,
    Scorer,
    Scores,
    TokenIds,
    Verification,
)
from xpubench.runtimes.llama_cpp.context import MICRO_BATCH_TOKENS, LlamaContext
from xpubench.runtimes.llama_cpp.dequantize import dequantized
from xpubench.runtimes.llama_cpp.device import backend_devices, device_of, gpu_of
from xpubench.runtimes.llama_cpp.gguf_file import Gguf, config_of_gguf, fingerprint_of, origin_of, read_gguf
from xpubench.runtimes.llama_cpp.ledger import explain
from xpubench.runtimes.llama_cpp.library import build, cpu_doubts, last_error, library
from xpubench.runtimes.llama_cpp.options import FLOATS, LlamaCppDescription, LlamaCppOptions, LlamaPerf
from xpubench.runtimes.llama_cpp.tokenizer import GgufTokenizer
from xpubench.runtimes.options import RuntimeDescription
from xpubench.runtimes.pytorch.scoring import regrets, scores
from xpubench.runtimes.vocabulary import SPECIAL, Vocabulary
from xpubench.spec import Subject, Workload

# More layers than any model has, so that all of them are put on the GPU.
ALL_LAYERS = 9999


class LlamaCppRuntime(Loader, Generator, Scorer):
    """A loaded GGUF. Each workload has a context of its own, and texts are scored in another one."""

    scores_rows_alone = True

    def __init__(self, subject: Subject, gguf: Gguf) -> None:
        self._llama = llama = library()
        self.subject, self.gguf, self.options = subject, gguf, llama_cpp_options(subject)
        self.gpu = gpu_of(subject.device)
        self.threads = self.options.threads or torch.get_num_threads()
        parameters = llama.llama_model_default_params()
        # The list of devices ends with a null pointer. Without a list, llama.cpp would use every GPU.
        chosen = [] if self.gpu is None else [self.gpu.handle]
        listed = (ctypes.c_void_p * (len(chosen) + 1))(*chosen)
        parameters.devices = ctypes.cast(listed, ctypes.c_void_p)
        layers = self.options.n_gpu_layers
        parameters.n_gpu_layers = 0 if self.gpu is None else ALL_LAYERS if layers is None else layers
        self._model = llama.llama_model_load_from_file(str(gguf.files[0]).encode(), parameters)
        if not self._model:
            raise RunFailure("bad_model", f"llama.cpp does not load {gguf.files[0]}: {last_error()}")
        self.layers = int(llama.llama_model_n_layer(self._model))
        tokenizer = GgufTokenizer(self._model, gguf.files[0].stem)
        special = {name: getattr(tokenizer, name) for name in SPECIAL}
        self.vocabulary = Vocabulary(
            subject.model, tokenizer.vocab_size, tokenizer, special.get, ending=tokenizer.end_ids
        )
        self._context: LlamaContext | None = None
        self._scoring: LlamaContext | None = None

    @classmethod
    def set_up(cls) -> None:
        library()

    @classmethod
    def first_device(cls) -> str:
        has_gpu = any(one.is_gpu for one in backend_devices())
        return available_devices()[0] if has_gpu else "cpu"

    @classmethod
    def device(cls, subject: Subject) -> Device:
        return device_of(subject.device)

    @classmethod
    def check(cls, subject: Subject) -> None:
        if subject.weights == "dummy":
            raise UserError("--dummy-weights are made by PyTorch; llama.cpp needs a GGUF")
        if subject.lora is not None:
            raise UserError("--lora takes a PEFT adapter, which llama.cpp does not load; merge it first")
        read_gguf(subject.model)

    @classmethod
    def model_config(cls, subject: Subject) -> dict[str, Any]:
        return config_of_gguf(read_gguf(subject.model))

    @classmethod
    def operators(cls, *_: object) -> None:
        """None, because llama.cpp has operators of its own."""

    @classmethod
    def fetch(cls, subject: Subject, say: Callable[[str], None]) -> None:
        """Converts the weights where they are to be dequantized."""
        _gguf_of(subject, say)

    @classmethod
    def load(cls, subject: Subject) -> Self:
        return cls(subject, _gguf_of(subject))

    @classmethod
    def origin(cls, subject: Subject) -> Origin | None:
        return origin_of(subject.model)

    @classmethod
    def fingerprint(cls, subject: Subject) -> WeightsFingerprint | None:
        from xpubench.weights.fingerprint import of_subject

        # That of the embedded model is of the checkpoint which it is dequantized to.
        return of_subject(subject) if subject.model.lower() == SMOLLM2 else fingerprint_of(subject.model)

    @property
    def scorer(self) -> Scorer | None:
        return self

    @property
    def rounding(self) -> str:
        """The coarsest of the dtypes of the cache and of the products: against quantized weights, llama.cpp
        rounds the activations to 8 bits. Its flash attention on a CPU rounds a float32 cache to float16."""
        caches = (self.options.cache_type_k.upper(), self.options.cache_type_v.upper())
        dtypes = [FLOATS.get(kind, "int8") for kind in (*caches, *self.gguf.matrix_types)]
        flash = [] if self.options.flash_attn == "off" else ["float16"]
        return max(*dtypes, *flash, key=UNIT_ROUNDOFF.__getitem__)

    def prepare(self, workload: Workload) -> None:
        if workload.num_beams > 1:
            raise RunFailure("unsupported", "llama.cpp has no beam search; give --greedy")
        if workload.cache == "static":
            raise RunFailure(
                "unsupported", "llama.cpp allocates its KV cache before a run; leave out --use-static-cache"
            )
        self._free_context()

    def generate(self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy) -> Generation:
        return self._generated(prompt_ids, workload, sync_policy)[0]

    @property
    def explainer(self) -> Explainer | None:
        return self

    def explain(self, prompt_ids: TokenIds, workload: Workload) -> Measured:
        return explain(lambda: self._generated(prompt_ids, workload, "every_token"))

    def _generated(
        self, prompt_ids: TokenIds, workload: Workload, sync_policy: SyncPolicy
    ) -> tuple[Generation, list[LlamaPerf]]:
        """A generation and, where tokens are stamped, llama.cpp's counters before it and at each token."""
        context = self._context_for(prompt_ids, workload)
        stamps: list[int] = []
        counters = [context.perf()]
        tokens = np.empty((len(prompt_ids), workload.new_tokens), dtype=np.int64)
        watch = LogitsSamples(self.vocabulary.size)
        start_ns = perf_counter_ns()
        for step, logits in enumerate(context.steps(prompt_ids, tokens)):
            tokens[:, step] = logits.argmax(-1)
            if sync_policy == "every_token":
                stamps.append(perf_counter_ns())
                counters.append(context.perf())
            watch.see(logits, tokens[:, step])
        end_ns = perf_counter_ns()
        times = TokenTimes(sync_policy=sync_policy, start_ns=start_ns, token_ns=stamps, end_ns=end_ns)
        return Generation(tokens=tokens, times=times, logits=watch.facts()), counters

    def verify(self, prompt_ids: TokenIds, workload: Workload) -> Verification:
        generation = self.generate(prompt_ids, workload, "end_to_end")
        assert self._context is not None
        k, v = self.options.cache_type_k, self.options.cache_type_v
        return Verification(
            tokens=generation.tokens,
            logits=generation.logits,
            cache=f"llama.cpp's, keys {k}, values {v}",
            cache_positions=self._context.cached_positions(),
        )

    def trace(
        self, prompt_ids: TokenIds, workload: Workload, forced: TokenIds | None
    ) -> tuple[TokenIds, Logits]:
        tokens = np.empty((len(prompt_ids), workload.new_tokens), dtype=np.int64)
        kept = []
        context = self._context_for(prompt_ids, workload)
        for step, logits in enumerate(context.steps(prompt_ids, tokens)):
            kept.append(logits.copy())
            tokens[:, step] = logits.argmax(-1) if forced is None else forced[:, step]
        return tokens, np.stack(kept, axis=1)

    def target_logprobs(self, token_ids: TokenIds, rows: Rows, targets: TokenIds) -> Scores:
        """Scores the sequences one at a time, because a pass over one text is already a large batch."""
        found, start = [], 0
        for ids, wanted in zip(token_ids, rows, strict=True):
            # Nothing after the last scored position, such as the padding, changes the positions before it.
            length = 1 + int(np.flatnonzero(wanted)[-1])
            count = int(wanted.sum())
            chunks = self._chunks(ids[:length], wanted[:length])
            found.append(scores(chunks, targets[start : start + count]))
            start += count
        logprobs, best = zip(*found, strict=True)
        return np.concatenate(logprobs), np.concatenate(best)

    def regrets(self, prompt_ids: TokenIds, tokens: TokenIds, rank: int) -> NDArray[np.float32]:
        token_ids = np.concatenate([prompt_ids, tokens], axis=1)[0, :-1]
        wanted = np.arange(len(token_ids)) >= prompt_ids.shape[1] - 1
        return regrets(self._chunks(token_ids, wanted), tokens[0], rank)

    def kv_value_bytes(self, head_dim: int) -> float:
        def bytes_of(kind: str) -> float:
            values, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind.upper()]]
            return float(size / values)

        return (bytes_of(self.options.cache_type_k) + bytes_of(self.options.cache_type_v)) / 2

    def describe(self) -> RuntimeDescription:
        gpu_layers = 0
        if self.gpu is not None:
            # The output head counts as a layer.
            most = self.layers + 1
            gpu_layers = most if self.options.n_gpu_layers is None else min(self.options.n_gpu_layers, most)
        context, given = self._context, read_gguf(self.subject.model)
        return LlamaCppDescription(
            weight_bytes=self.gguf.weight_bytes,
            step_weight_bytes=self.gguf.step_weight_bytes,
            files=[file.name for file in self.gguf.files],
            model=self._words(),
            weights=self.gguf.weights,
            dequantized_from=given.weights if given.files != self.gguf.files else None,
            source=origin.model if (origin := origin_of(self.subject.model)) is not None else None,
            tensor_bytes=self.gguf.tensor_bytes,
            build=build(),
            devices=[one.facts() for one in backend_devices()],
            device=None if self.gpu is None else self.gpu.name,
            gpu_layers=gpu_layers,
            threads=self.threads,
            cache_type_k=self.options.cache_type_k,
            cache_type_v=self.options.cache_type_v,
            flash_attention={"on": True, "off": False}.get(self.options.flash_attn),
            context_tokens=None if context is None else context.tokens,
            batch_tokens=MICRO_BATCH_TOKENS,
            perf=None if context is None or context.sequences > 1 else context.perf(),
        )

    def doubts(self) -> list[str]:
        return cpu_doubts() if self.gpu is None else []

    def checksum(self) -> int | None:
        return None

    def close(self) -> None:
        self._free_context()
        if self._scoring is not None:
            self._scoring.close()
            self._scoring = None
        self._llama.llama_model_free(self._model)

    def _words(self) -> str:
        text = ctypes.create_string_buffer(256)
        self._llama.llama_model_desc(self._model, text, len(text))
        return text.value.decode(errors="replace")

    def _chunks(self, ids: NDArray[np.int64], wanted: NDArray[np.bool_]) -> Any:
        """Yields the logits of one text at the wanted positions, as tensors in chunks."""
        if self._scoring is None or self._scoring.positions < len(ids):
            if self._scoring is not None:
                self._scoring.close()
            self._scoring = self._new_context(1, len(ids), outputs=MICRO_BATCH_TOKENS)
        return map(torch.from_numpy, self._scoring.rows(ids, wanted))

    def _context_for(self, prompt_ids: TokenIds, workload: Workload) -> LlamaContext:
        sequences, positions = len(prompt_ids), prompt_ids.shape[1] + workload.new_tokens
        known = self._context
        if known is None or known.sequences != sequences or known.positions < positions:
            self._free_context()
            self._context = known = self._new_context(sequences, positions, outputs=sequences)
        return known

    def _new_context(self, sequences: int, positions: int, *, outputs: int) -> LlamaContext:
        return LlamaContext(
            self._model,
            self.options,
            sequences=sequences,
            positions=positions,
            outputs=outputs,
            threads=self.threads,
            on_gpu=self.gpu is not None,
            vocabulary_size=self.vocabulary.size,
        )

    def _free_context(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None


def _gguf_of(subject: Subject, say: Callable[[str], None] = lambda _: None) -> Gguf:
    """The GGUF that the subject loads."""
    gguf, options = read_gguf(subject.model), llama_cpp_options(subject)
    return dequantized(gguf, options.weights, say) if options.dequantize else gguf


def llama_cpp_options(subject: Subject) -> LlamaCppOptions:
    assert isinstance(subject.options, LlamaCppOptions)
    return subject.options
