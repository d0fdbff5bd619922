"""A trained Llama in another shape, which computes the same.

IPEX shares a model among ranks only where the heads, and the hidden features in grains of 64, divide evenly,
and those of the small trained models at hand do not. The heads and features that are added are zero, and
lie between the trained ones, so that each rank holds some of these.
"""

import json
import shutil
from pathlib import Path
from typing import Any


def widen(source: Path, directory: Path, *, key_value_heads: int, inner: int, layers: int) -> None:
    """Writes the first `layers` of the model in `source` to `directory` with more key-value heads, as many
    attention heads to each as before, the hidden size that these have together, and another inner size."""
    import torch
    from safetensors.torch import load_file, save_file

    config = json.loads((source / "config.json").read_text())
    hidden, old_heads = config["hidden_size"], config["num_key_value_heads"]
    group, size = config["num_attention_heads"] // old_heads, hidden // config["num_attention_heads"]
    wide = key_value_heads * group * size

    def spread(old: int, new: int, length: int = 1) -> Any:
        """The 0-1 matrix [new x length, old x length] that puts `old` blocks of that length among `new`."""
        blocks = torch.nn.functional.one_hot(torch.arange(old) * new // old, new).T.float().contiguous()
        return torch.kron(blocks, torch.eye(length))

    features, middle = spread(hidden, wide), spread(config["intermediate_size"], inner)
    queries = spread(old_heads, key_value_heads, group * size)
    values = spread(old_heads, key_value_heads, size)
    sides = {
        **{"q_proj": (queries, features), "k_proj": (values, features), "v_proj": (values, features)},
        **{"o_proj": (features, queries), "down_proj": (features, middle)},
        **{"gate_proj": (middle, features), "up_proj": (middle, features)},
    }
    weights = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if name.startswith("model.layers.") and int(name.split(".")[2]) >= layers:
            continue
        if weight.dim() == 1:
            # The mean of a norm is over the zeros too.
            weights[name] = features @ weight * (hidden / wide) ** 0.5
            continue
        rows, columns = sides.get(name.split(".")[-2], (None, features))
        weights[name] = (weight if rows is None else rows @ weight) @ columns.T
    directory.mkdir()
    for path in source.glob("*token*.json"):
        shutil.copyfile(path, directory / path.name)
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    config |= {
        "num_hidden_layers": layers,
        "hidden_size": wide,
        "num_attention_heads": key_value_heads * group,
        "num_key_value_heads": key_value_heads,
        "intermediate_size": inner,
        "rms_norm_eps": config["rms_norm_eps"] * hidden / wide,
    }
    (directory / "config.json").write_text(json.dumps(config))
