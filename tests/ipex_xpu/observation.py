"""What every call of `generate` in a process returned, for tests that see only a command line."""

import functools
import json
import os
from pathlib import Path
from typing import Any

TOKENS_VARIABLE = "XPU_EMULATION_TOKENS"


def install() -> None:
    """Has each call of transformers' `generate` append a line of JSON to the file that
    `XPU_EMULATION_TOKENS` names: `{"device", "beams", "vocabulary", "prompt_tokens", "sequences"}`,
    the sequences with their prompts. Calls that raise, and those that are forced along given tokens, leave no
    line."""
    from transformers import GenerationMixin

    generate = GenerationMixin.generate

    @functools.wraps(generate)
    def observed(self: Any, *arguments: Any, **named: Any) -> Any:
        result = generate(self, *arguments, **named)
        processors = named.get("logits_processor") or ()
        if any(getattr(one, "forced", None) is not None for one in processors):
            return result
        prompt: Any = arguments[0] if arguments else named.get("inputs", named.get("input_ids"))
        given = named.get("generation_config")
        beams = named.get("num_beams", getattr(given, "num_beams", 1))
        # IPEX's beam search gives a tensor, or with its times a pair, where transformers gives an object.
        found = result[0] if isinstance(result, tuple) else getattr(result, "sequences", result)
        line = {
            "device": self.device.type,
            "beams": beams,
            "vocabulary": self.config.vocab_size,
            "prompt_tokens": prompt.shape[1],
            "sequences": found.tolist(),
        }
        with Path(os.environ[TOKENS_VARIABLE]).open("a") as file:
            file.write(json.dumps(line) + "\n")
        return result

    GenerationMixin.generate = observed
