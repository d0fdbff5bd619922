"""Parameters, KV cache and work of a causal language model, from its transformers config alone."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from xpubench.errors import UserError, unknown

Config = dict[str, Any]


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a decoder-only transformer. Counts are numbers of parameters unless the name says
    otherwise.

    In a mixture of experts, each layer has `experts` gated MLPs of `expert_parameters` each, and a token
    uses `experts_per_token` of them. The layer's counts include all experts, and `intermediate_size` is
    that of one expert. Where only `sparse_layers` of the layers have experts, `other_parameters` is reduced
    by what the remaining layers lack.

    `weight_bits` are the fewest bits in which a quantized checkpoint stores a value of its matrices; None
    where the config is not that of one.
    """

    model_type: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_positions: int | None  # None: no limit of its own (ALiBi)
    tied: bool  # the output head is the input embedding
    layer_parameters: int  # of one layer
    linear_parameters: int  # of one layer's matrices
    other_parameters: int  # norms and projections outside the layers
    embedding_parameters: int  # the token table
    position_parameters: int  # the table of learned positions
    head_parameters: int  # the output head, tied or not
    experts: int = 1
    experts_per_token: int = 1
    expert_parameters: int = 0
    sparse_layers: int = 0
    weight_bits: int | None = None

    @classmethod
    def from_config(cls, config: Config) -> "Architecture":
        """From the fields of a transformers config, 4.x or 5.x; UserError for a model type not known."""
        model_type = str(config.get("model_type"))
        if model_type not in _BUILDERS:
            raise unknown("architecture", model_type, list(_BUILDERS))
        try:
            found = _BUILDERS[model_type](config)
            return msgspec.structs.replace(found, weight_bits=_weight_bits(config))
        except KeyError as error:
            raise UserError(f"the config of this {model_type} model has no {error}") from error
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise UserError(f"the config of this {model_type} model has an invalid size: {error}") from error

    @property
    def parameter_count(self) -> int:
        """All parameters; a tied head counts once."""
        tables = self.embedding_parameters + self.position_parameters
        head = 0 if self.tied else self.head_parameters
        return self.num_layers * self.layer_parameters + tables + self.other_parameters + head

    @property
    def step_weight_parameters(self) -> int:
        """The parameters that one decoding step reads: all but the tables, of which it reads one row for each
        sequence. A tied embedding is read whole, as the head."""
        return self.num_layers * self.layer_parameters + self.other_parameters + self.head_parameters

    def touched_experts(self, tokens: int) -> float:
        """The expected number of different experts of one layer that `tokens` tokens use together, if each
        token chose its experts at random. It is lower where the router prefers some experts or where
        tokens resemble each other."""
        return self.experts * (1 - (1 - self.experts_per_token / self.experts) ** tokens)

    def step_share(self, sequences: int) -> float:
        """The share of a decoding step's parameters that is read when `sequences` sequences are decoded
        together: everything except the experts that no sequence uses."""
        left = self.sparse_layers * (self.experts - self.touched_experts(sequences)) * self.expert_parameters
        return 1 - left / self.step_weight_parameters

    @property
    def kv_values_per_token(self) -> int:
        """The number of elements that the keys and values of one token have, summed over all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim

    def kv_cache_bytes(self, *, sequences: int, positions: int, value_bytes: float) -> int:
        """Bytes of the KV cache. A sliding window could make it smaller, which this ignores."""
        return int(sequences * positions * self.kv_values_per_token * value_bytes)

    def product_flop(self, *, sequences: int, tokens: int) -> int:
        """Floating point operations of the products with weights when each sequence has so many tokens, 1 in
        a decoding step: 2 for each token and parameter that it uses (the output head runs for the last token
        only)."""
        left = self.sparse_layers * (self.experts - self.experts_per_token) * self.expert_parameters
        used = self.num_layers * self.layer_parameters + self.other_parameters - left
        return 2 * sequences * (used * tokens + self.head_parameters)

    def prefill_flop(self, *, sequences: int, tokens: int) -> int:
        """Floating point operations of a prompt's pass: those of the products with weights, and 4 for each
        head dimension and each pair of a token and an earlier one that it attends to."""
        pairs = tokens * (tokens + 1) // 2
        attention = 4 * self.num_layers * self.num_heads * self.head_dim * pairs
        return self.product_flop(sequences=sequences, tokens=tokens) + sequences * attention

    def part(self, ranks: int) -> "Architecture":
        """The sizes on the first of several ranks, which holds the most: its attention heads, its share of
        the other matrices, and its share of the output head, which is a matrix of its own there even if
        the model ties it. Tables and norms are whole on every rank. UserError where some rank would have
        no attention head."""
        if ranks == 1:
            return self
        heads, kv_heads = head_shares(self.num_heads, self.num_kv_heads, ranks)[0]
        intermediate = _first_share(self.intermediate_size, ranks)
        values = 2 * self.hidden_size * self.head_dim
        attention = values * (self.num_heads + self.num_kv_heads)
        mlp = (self.linear_parameters - attention) * intermediate // self.intermediate_size
        linear = values * (heads + kv_heads) + mlp
        return msgspec.structs.replace(
            self,
            num_heads=heads,
            num_kv_heads=kv_heads,
            intermediate_size=intermediate,
            tied=False,
            # Biases are few and some are whole on each rank, so all are counted as whole.
            layer_parameters=self.layer_parameters - self.linear_parameters + linear,
            linear_parameters=linear,
            expert_parameters=self.expert_parameters * intermediate // self.intermediate_size,
            head_parameters=self.vocab_size * _first_share(self.head_parameters // self.vocab_size, ranks),
        )


def architecture_of(config: dict[str, Any]) -> Architecture | None:
    """The architecture of a transformers config, None where the planner does not know it."""
    try:
        return Architecture.from_config(config)
    except UserError:
        return None


def head_shares(heads: int, kv_heads: int, ranks: int) -> list[tuple[int, int]]:
    """The numbers of attention heads and of key-value heads on each rank, as AutoTP distributes them: it
    deals out the key-value heads one by one, each with the attention heads that read it. UserError where
    some rank would have none."""
    if min(heads, kv_heads) < ranks:
        both = f"{heads} attention heads and {kv_heads} key-value heads"
        hint = f"start at most {min(heads, kv_heads)} ranks"
        raise UserError(f"{ranks} ranks cannot share the model's {both}: {hint}")
    shares = [kv_heads // ranks + (rank < kv_heads % ranks) for rank in range(ranks)]
    return [(heads * share // kv_heads, share) for share in shares]


def _weight_bits(config: Config) -> int | None:
    """The fewest bits that a checkpoint's `quantization_config` names, whatever library wrote it (GPTQ, AWQ,
    AutoRound and compressed-tensors do), 1 where it names none; None where it has no such field."""
    fields = config.get("quantization_config")
    return min(_named_bits(fields), default=1) if isinstance(fields, dict) else None


def _named_bits(fields: Any) -> Iterator[int]:
    for name, value in fields.items() if isinstance(fields, dict) else ():
        if name in _BITS and isinstance(value, int) and value > 0:
            yield value
        yield from _named_bits(value)


def _first_share(size: int, ranks: int) -> int:
    """The first rank's share of a size that AutoTP distributes in multiples of 64."""
    return -(-(size // _MULTIPLE) // ranks) * _MULTIPLE if size >= _MULTIPLE else -(-size // ranks)


def _decoder(
    config: Config, *, vectors: int, other: int, mlp_matrices: int = 2, kv_heads: int = 0, head_dim: int = 0
) -> Architecture:
    """The architecture of a config that uses Llama's names. `vectors` counts the biases and norms of one
    layer, `other` the parameters outside of layers and tables."""
    model_type, vocab_size = config["model_type"], config["vocab_size"]
    hidden, heads, intermediate = (config[name] for name in _SIZES)
    kv_heads, head_dim = kv_heads or heads, head_dim or hidden // heads
    linear = 2 * hidden * head_dim * (heads + kv_heads) + mlp_matrices * hidden * intermediate
    table = vocab_size * (config.get("word_embed_proj_dim") or hidden)
    return Architecture(
        model_type=model_type,
        num_layers=config["num_hidden_layers"],
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=intermediate,
        vocab_size=vocab_size,
        max_positions=config.get("max_position_embeddings"),
        tied=bool(config.get("tie_word_embeddings", model_type in _TIED)),
        layer_parameters=linear + vectors,
        linear_parameters=linear,
        other_parameters=other,
        embedding_parameters=table,
        # OPT's table of learned positions starts at 2.
        position_parameters=(config["max_position_embeddings"] + 2) * hidden if model_type == "opt" else 0,
        head_parameters=table,
    )


def _llama_like(config: Config) -> Architecture:
    """Models with RMS norms, a gated MLP, and rotary positions or ALiBi, which differ in biases and in norms
    within the layer. Sizes that a config leaves out have the defaults of transformers' classes."""
    model_type = config["model_type"]
    hidden, heads, intermediate = (config[name] for name in _SIZES)
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or (128 if model_type in _WIDE_HEADS else hidden // heads)
    biased = model_type not in _NEVER_BIASED and bool(config.get("attention_bias", model_type in _BIASED))
    biased = biased or model_type == "qwen2"
    vectors = ((heads + 2 * kv_heads) * head_dim + hidden * (model_type not in _OUTPUT_NEVER_BIASED)) * biased
    vectors += (2 * intermediate + hidden) * bool(config.get("mlp_bias", False))
    vectors += (4 if model_type == "glm4" else 2) * hidden + 2 * head_dim * (model_type == "qwen3")
    return _decoder(
        config, vectors=vectors, other=hidden, mlp_matrices=3, kv_heads=kv_heads, head_dim=head_dim
    )


def _mixture(config: Config) -> Architecture:
    """Models whose layers have routed experts in place of the MLP, some of them with a shared expert that
    every token uses: Mixtral, Qwen2-MoE and Qwen3-MoE."""
    model_type, hidden = config["model_type"], config["hidden_size"]
    # transformers 5 gives all of them Mixtral's name.
    experts = config["num_local_experts"] if "num_local_experts" in config else config["num_experts"]
    size = config["intermediate_size"] if model_type == "mixtral" else config["moe_intermediate_size"]
    shared = config.get("shared_expert_intermediate_size") or 0 if model_type == "qwen2_moe" else 0
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    like = {"model_type": _DENSE_LIKE[model_type], "intermediate_size": size, "head_dim": head_dim}
    one = _llama_like(config | like)
    expert, layers = 3 * hidden * size, config["num_hidden_layers"]
    every, without = config.get("decoder_sparse_step") or 1, config.get("mlp_only_layers") or []
    sparse = sum((at + 1) % every == 0 and at not in without for at in range(layers))
    linear = (experts - 1) * expert + 3 * hidden * shared
    # The router, and the gate of the shared expert.
    more = linear + hidden * experts + hidden * bool(shared)
    dense = 3 * hidden * config["intermediate_size"] - expert - more
    return msgspec.structs.replace(
        one,
        model_type=model_type,
        layer_parameters=one.layer_parameters + more,
        linear_parameters=one.linear_parameters + linear,
        other_parameters=one.other_parameters + (layers - sparse) * dense,
        experts=experts,
        experts_per_token=config["num_experts_per_tok"],
        expert_parameters=expert,
        sparse_layers=sparse,
    )


def _chatglm(config: Config) -> Architecture:
    """GLM-4-9B as its own code on the hub names it: the architecture that transformers calls glm."""
    names = {
        "vocab_size": "padded_vocab_size",
        "intermediate_size": "ffn_hidden_size",
        "num_hidden_layers": "num_layers",
        "num_key_value_heads": "multi_query_group_num",
        "head_dim": "kv_channels",
        "max_position_embeddings": "seq_length",
        "attention_bias": "add_qkv_bias",
    }
    renamed = {name: config[theirs] for name, theirs in names.items()}
    return _llama_like(config | renamed | {"model_type": "glm"})


def _gptj(config: Config) -> Architecture:
    names = ("n_embd", "n_head", "n_layer", "n_positions")
    hidden, heads, layers, positions = (config[name] for name in names)
    renamed = {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "intermediate_size": config.get("n_inner") or 4 * hidden,
        "max_position_embeddings": positions,
    }
    # The final norm, and the head's bias, which it keeps where the table is tied.
    other = 2 * hidden + config["vocab_size"]
    return _decoder(config | renamed, vectors=renamed["intermediate_size"] + 3 * hidden, other=other)


def _opt(config: Config) -> Architecture:
    hidden, intermediate = config["hidden_size"], config["ffn_dim"]
    width = config.get("word_embed_proj_dim") or hidden
    final_norm = config.get("do_layer_norm_before", True) and not config.get("_remove_final_layer_norm")
    other = 2 * hidden * bool(final_norm) + 2 * width * hidden * (width != hidden)
    renamed = config | {"intermediate_size": intermediate}
    return _decoder(renamed, vectors=intermediate + 9 * hidden, other=other)


def _bloom(config: Config) -> Architecture:
    hidden = config.get("hidden_size") or config["n_embed"]
    renamed = {
        "hidden_size": hidden,
        "num_attention_heads": config.get("n_head") or config["num_attention_heads"],
        "num_hidden_layers": config.get("n_layer") or config["num_hidden_layers"],
        "intermediate_size": 4 * hidden,
        "max_position_embeddings": None,  # ALiBi
    }
    return _decoder(config | renamed, vectors=13 * hidden, other=4 * hidden)


# Without experts, their layers are those of these models.
_DENSE_LIKE = {"mixtral": "mistral", "qwen2_moe": "qwen2", "qwen3_moe": "qwen3"}
_SIZES = ("hidden_size", "num_attention_heads", "intermediate_size")
_BITS = ("bits", "num_bits", "w_bit")
_MULTIPLE = 64
_TIED = ("opt", "bloom")
_WIDE_HEADS = ("qwen3", "glm", "glm4")
_BIASED = ("glm", "glm4")
_NEVER_BIASED = ("mistral", "phi3", "baichuan")
_OUTPUT_NEVER_BIASED = ("qwen2", "glm", "glm4")

_BUILDERS: dict[str, Callable[[Config], Architecture]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "phi3", "glm", "glm4", "baichuan"), _llama_like),
    **dict.fromkeys(_DENSE_LIKE, _mixture),
    "chatglm": _chatglm,
    "gptj": _gptj,
    "opt": _opt,
    "bloom": _bloom,
}
