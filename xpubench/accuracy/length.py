"""The longest text that a model takes."""

from typing import Any

# As in lm-eval's HFLM: the fields of a config that hold it, what a tokenizer says that knows none, and what
# is assumed then.
FIELDS = ("n_positions", "max_position_embeddings", "n_ctx")
NOT_KNOWN = int(1e30)
ASSUMED = 2048


def longest_text(config: dict[str, Any], tokenizer: Any) -> int:
    """The most tokens of a text that a model takes, found where lm-eval's HFLM finds it: in the config, in
    which the class's default stands for a field that is left out, else in the tokenizer. 2,048 where
    neither says it."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    found = _named(config)
    if found is None and config.get("model_type") in CONFIG_MAPPING_NAMES:
        from xpubench.weights.empty import transformers_config

        found = _named(transformers_config(config).to_dict())
    if found is None:
        told = getattr(tokenizer, "model_max_length", NOT_KNOWN)
        found = ASSUMED if told == NOT_KNOWN else int(told)
    return found


def _named(config: dict[str, Any]) -> int | None:
    fields = config.get("text_config") or config
    return next((int(fields[name]) for name in FIELDS if fields.get(name) is not None), None)
