"""What openvino.genai's llm_bench reports of an IR, by its method, in a process of its own.

llm_bench is no package that can be installed; this stands for it. Its method: an `LLMPipeline` as it is by
default, but without a cache of compiled models; one warm-up; each iteration generates exactly the asked
tokens, greedily, without a streamer, from one prompt of which a token is another each time, so that GenAI's
cache of prefixes does not serve it. The latency of a next token is the difference of two successive
`m_new_token_times` of `perf_metrics`; the report is their mean.

    python -m benchmarks.llm_bench IR INPUT_TOKENS NEW_TOKENS ITERATIONS
"""

import json
import sys
from typing import Any

import numpy as np

from xpubench.measure.host import peak_host_bytes
from xpubench.runtimes.openvino.stack import import_openvino, import_optional


def measure(ir: str, input_tokens: int, new_tokens: int, iterations: int) -> list[float]:
    """Each iteration's mean next token latency in milliseconds."""
    openvino, genai = import_openvino(), import_optional("openvino_genai")
    pipeline = genai.LLMPipeline(ir, "CPU", CACHE_DIR="", INFERENCE_PRECISION_HINT="f32")
    config = pipeline.get_generation_config()
    config.max_new_tokens = new_tokens
    config.ignore_eos = True
    config.do_sample = False
    config.apply_chat_template = False
    prompt = np.random.default_rng(0).integers(100, 10_000, (1, input_tokens))
    rows = []
    for index in range(iterations + 1):
        prompt[:, 1] = index + 1
        inputs = genai.TokenizedInputs(openvino.Tensor(prompt.copy()), openvino.Tensor(np.ones_like(prompt)))
        raw: Any = pipeline.generate(inputs, config).perf_metrics.raw_metrics
        rows.append(float(np.diff(raw.m_new_token_times).mean()))
    return rows[1:]


if __name__ == "__main__":
    ir, *numbers = sys.argv[1:]
    rows = measure(ir, *(int(number) for number in numbers))
    print(json.dumps({"next_token_ms": rows, "peak_host_bytes": peak_host_bytes()}))
