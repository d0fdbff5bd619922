"""A context of llama.cpp: a KV cache for some sequences, and the passes over it."""

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from xpubench.errors import RunFailure
from xpubench.runtimes.base import Logits, TokenIds
from xpubench.runtimes.llama_cpp.library import last_error, library
from xpubench.runtimes.llama_cpp.options import LlamaCppOptions, LlamaPerf

# The number of tokens in one call, and the number that are computed at once, as in llama.cpp's own programs.
BATCH_TOKENS, MICRO_BATCH_TOKENS = 2048, 512
# llama.cpp attends to a number of cached positions that is a multiple of this.
CACHE_MULTIPLE = 256


class LlamaContext:
    """A context of a loaded model: a KV cache for `sequences` sequences of at most `positions` positions
    each, and space for the logits of `outputs` positions. RunFailure where llama.cpp cannot make it."""

    def __init__(
        self,
        model: Any,
        options: LlamaCppOptions,
        *,
        sequences: int,
        positions: int,
        outputs: int,
        threads: int,
        on_gpu: bool,
        vocabulary_size: int,
    ) -> None:
        self._llama = llama = library()
        self.sequences, self.positions = sequences, positions
        self._vocabulary_size = vocabulary_size
        parameters = llama.llama_context_default_params()
        self.tokens = sequences * -(-positions // CACHE_MULTIPLE) * CACHE_MULTIPLE
        parameters.n_ctx = self.tokens
        parameters.n_batch = max(BATCH_TOKENS, sequences)
        parameters.n_ubatch = MICRO_BATCH_TOKENS
        parameters.n_seq_max = sequences
        parameters.n_outputs_max, parameters.n_outputs_max_per_seq = outputs, outputs // sequences
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.type_k = GGMLQuantizationType[options.cache_type_k.upper()]
        parameters.type_v = GGMLQuantizationType[options.cache_type_v.upper()]
        parameters.flash_attn_type = {"auto": -1, "off": 0, "on": 1}[options.flash_attn]
        parameters.offload_kqv = parameters.op_offload = on_gpu
        parameters.no_perf = False
        self._context = llama.llama_init_from_model(model, parameters)
        if not self._context:
            shape = f"a context of {sequences} x {positions} tokens"
            raise RunFailure("unsupported", f"llama.cpp cannot make {shape}: {last_error()}")
        self._memory = llama.llama_get_memory(self._context)

    def clear(self) -> None:
        """Empties the KV cache."""
        self._llama.llama_memory_clear(self._memory, True)

    def perf(self) -> LlamaPerf:
        """The counters that llama.cpp keeps itself."""
        found = self._llama.llama_perf_context(self._context)
        return LlamaPerf(
            prompt_ms=found.t_p_eval_ms,
            prompt_tokens=found.n_p_eval,
            eval_ms=found.t_eval_ms,
            eval_tokens=found.n_eval,
        )

    def cached_positions(self) -> int:
        """The number of positions of the first sequence that the cache holds."""
        return int(self._llama.llama_memory_seq_pos_max(self._memory, 0)) + 1

    def steps(self, prompt_ids: TokenIds, tokens: TokenIds) -> Iterator[Logits]:
        """Yields each step's logits, of shape (sequences, vocabulary), after prompts of shape (sequences,
        length). They are valid until the next step. Before that, the caller writes the chosen tokens to this
        step's column of `tokens`, of shape (sequences, steps)."""
        self.clear()
        sequences, length = prompt_ids.shape
        at_once = max(1, BATCH_TOKENS // sequences)
        for start in range(0, length, at_once):
            part = prompt_ids[:, start : start + at_once]
            outputs = np.zeros(part.shape, dtype=np.int8)
            outputs[:, -1] = start + part.shape[1] == length
            self._decode(_Batch(part, start, outputs))
        yield self._logits(sequences)
        step = _Batch(tokens[:, :1], length, np.ones((sequences, 1), dtype=np.int8))
        for number in range(1, tokens.shape[1]):
            step.token[:] = tokens[:, number - 1]
            step.position[:] = length + number - 1
            self._decode(step)
            yield self._logits(sequences)

    def rows(self, token_ids: NDArray[np.int64], wanted: NDArray[np.bool_]) -> Iterator[Logits]:
        """Yields the logits of one sequence at the `wanted` positions, both of shape (length,), in chunks of
        shape (positions, vocabulary). Each chunk is valid until the next one."""
        self.clear()
        for start in range(0, len(token_ids), MICRO_BATCH_TOKENS):
            outputs = wanted[None, start : start + MICRO_BATCH_TOKENS].astype(np.int8)
            self._decode(_Batch(token_ids[None, start : start + MICRO_BATCH_TOKENS], start, outputs))
            if outputs.any():
                yield self._logits(int(outputs.sum()))

    def close(self) -> None:
        """Frees the context."""
        self._llama.llama_free(self._context)

    def _decode(self, batch: "_Batch") -> None:
        code = self._llama.llama_decode(self._context, batch.struct)
        if code != 0:
            raise RunFailure("crash", f"llama_decode gave {code}: {last_error()}")
        # On a GPU the call above returns before the work is done.
        self._llama.llama_synchronize(self._context)

    def _logits(self, rows: int) -> Logits:
        pointer = self._llama.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, (rows, self._vocabulary_size))


class _Batch:
    """The input of one call: `ids` of shape (sequences, length) from position `start` on, and for each of
    them whether its logits are wanted. llama.cpp reads the same arrays, which may be changed between
    calls."""

    def __init__(self, ids: TokenIds, start: int, outputs: NDArray[np.int8]) -> None:
        llama = library()
        sequences, length = ids.shape
        self.token = np.ascontiguousarray(ids.ravel(), dtype=np.int32)
        self.position = np.tile(np.arange(start, start + length, dtype=np.int32), sequences)
        self._counts = np.ones(ids.size, dtype=np.int32)
        self._sequences = np.repeat(np.arange(sequences, dtype=np.int32), length)
        # Each token has a pointer to the list of its sequences, which has one element here.
        step = self._sequences.itemsize
        self._pointers = self._sequences.ctypes.data + step * np.arange(ids.size, dtype=np.uintp)
        self._outputs = np.ascontiguousarray(outputs.ravel())
        ints = ctypes.POINTER(ctypes.c_int32)
        self.struct = llama.llama_batch(
            n_tokens=ids.size,
            token=self.token.ctypes.data_as(ints),
            embd=None,
            pos=self.position.ctypes.data_as(ints),
            n_seq_id=self._counts.ctypes.data_as(ints),
            seq_id=self._pointers.ctypes.data_as(ctypes.POINTER(ints)),
            logits=self._outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
