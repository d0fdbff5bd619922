"""The fused attention kernels (csrc/gpu/aten/operators/transformers/attention.cpp)."""

import torch
from torch import Tensor

from tests.ipex_xpu.emulation import profiles
from tests.ipex_xpu.emulation.operators.registry import check, operator

MASKS = "Tensor? alibi, Tensor? attn_mask, Tensor? head_mask"


@operator(
    f"xetla_fsdp_forward_atten_mask_alibi_strided(Tensor query, Tensor key, Tensor value, {MASKS}, "
    "float alpha, float beta, float dropout_p, bool is_causal, bool seq_last) -> Tensor"
)
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    alibi: Tensor | None,
    mask: Tensor | None,
    head_mask: Tensor | None,
    alpha: float,
    beta: float,
    dropout: float,
    is_causal: bool,
    seq_last: bool,
) -> Tensor:
    """`softmax(alpha query key^T + alibi + mask) value`.

    query: [rows, heads, m, head size]; key and value: [rows, key-value heads, n, head size]; alibi:
    [rows x heads, 1, padded n]; result: that of query. With `is_causal` position i sees the first i + 1 keys.
    `seq_last` names the layout in memory alone. Half only.
    """
    _check(query, key, value, head_mask)
    return _attend(query, key, value, alibi, mask, alpha, is_causal)


@operator(
    "xetla_fsdp_index_forward(Tensor query, Tensor key, Tensor value, Tensor key_cache, Tensor value_cache, "
    f"Tensor index, {MASKS}, int timestep, float alpha, float beta, float dropout_p, bool is_causal) "
    "-> Tensor"
)
def attention_over_beams(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    index: Tensor,
    alibi: Tensor | None,
    mask: Tensor | None,
    head_mask: Tensor | None,
    timestep: int,
    alpha: float,
    beta: float,
    dropout: float,
    is_causal: bool,
) -> Tensor:
    """Attention of one new token of each beam over the prompt's keys and over those of the beam's past.

    query: [batch x beams, heads, 1, head size]; key and value, of the prompt: [batch, heads, n, head size];
    caches, of the new tokens: [batch x beams, heads, t, head size]; index: [t, batch x beams] int32, at
    step s the beam, within its batch, from whose row beam b goes on. Half only; 1 or 4 beams only.

    IndexError where the index is of another shape: the real kernel reads whatever lies there.
    """
    _check(query, key, value, head_mask)
    batch, steps = key.shape[0], key_cache.shape[2]
    beams = query.shape[0] // batch
    check(beams in (1, 4), "SDP only support greedy search and beam search with beam size is 1 or 4")
    check(index.dtype == torch.int32, "expected scalar type Int for the beam index")
    if index.shape != (steps, query.shape[0]):
        raise IndexError(
            f"emulated xetla_fsdp_index_forward: a beam index of {tuple(index.shape)} for {steps} steps of "
            f"{query.shape[0]} rows; the real kernel would read memory that is not the index's"
        )
    rows = index.long().view(steps, batch, beams) + torch.arange(batch)[:, None] * beams
    places = rows.view(steps, -1).t()[:, None, :, None].expand_as(key_cache)
    keys = torch.cat((key.repeat_interleave(beams, 0), key_cache.gather(0, places)), 2)
    values = torch.cat((value.repeat_interleave(beams, 0), value_cache.gather(0, places)), 2)
    return _attend(query, keys, values, alibi, mask, alpha, False)


def _check(query: Tensor, key: Tensor, value: Tensor, head_mask: Tensor | None) -> None:
    check(head_mask is None, "Unsupported feature in fsdp kernel, head_mask ...")
    for tensor in (query, key, value):
        check(tensor.dtype == torch.half, "IPEX SDP only supports half datatype")
    check(
        profiles.current().matrix_engines,
        "SDP kernel requires XMX, but the current platform has no XMX ...",
    )


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    alibi: Tensor | None,
    mask: Tensor | None,
    alpha: float,
    is_causal: bool,
) -> Tensor:
    rows, heads, m, _ = query.shape
    groups, n = heads // key.shape[1], key.shape[2]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = torch.matmul(query.float(), key.float().transpose(-1, -2)) * alpha
    if alibi is not None:
        check(
            alibi.shape[-1] * alibi.element_size() % 8 == 0,
            "XeTLA SDP Alibi needs 8bytes aligned on leading dimension ...",
        )
        scores = scores + alibi.view(rows, heads, -1, alibi.shape[-1])[..., :n].float()
    if mask is not None:
        check(
            mask.shape[-1] * mask.element_size() % 8 == 0,
            "XeTLA SDP Attention mask needs 8bytes aligned on leading dimension ...",
        )
        scores = scores + mask[..., :n].float()
    if is_causal:
        seen = torch.ones(m, n, dtype=torch.bool).tril()
        scores = scores.masked_fill(~seen, float("-inf"))
    return torch.matmul(torch.softmax(scores, -1), value.float()).to(query.dtype)
