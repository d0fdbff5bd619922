"""IPEX's own beam search over a static cache (csrc/gpu/aten/operators/BeamSearch.cpp and BeamSearch.h).

Hypotheses that ended wait in a pool of candidates with room for twice the beams of each row of the batch;
the others are kept step by step as tokens and as the beams that they go on from. Lengths count the new
tokens alone, but a score's length penalty counts the prompt too, unlike that of transformers.
"""

import torch
from torch import Tensor

from tests.ipex_xpu.emulation.operators.registry import check, operator

POOL = (
    "Tensor(d!) candidate_num_beams, Tensor(e!) candidate_normed_scores, "
    "Tensor(f!) candidate_min_normed_scores, Tensor(g!) candidate_output_ids, "
    "Tensor(h!) candidate_sequence_lengths, Tensor(i!) candidate_score"
)


def _normed(score: float, length: int, penalty: float) -> float:
    return score if penalty == 0 or length == 1 else score / float(length) ** penalty


def _trace_back(into: Tensor, last: int, beam: int, base: int, tokens: Tensor, beam_ids: Tensor) -> None:
    """Writes the tokens of steps 0 to `last` that lead to `beam`, whose row is `base + beam`."""
    for step in range(last, -1, -1):
        into[step] = tokens[step, base + beam]
        beam = int(beam_ids[step, base + beam])


@operator(
    "beam_search_topk(Tensor logits_score, Tensor(a!) finished, int pad_token_id, Tensor eos_token_id, "
    "float length_penalty, int beam_size, int batch_size, int vocab_size, int cur_len, bool early_stopping, "
    "int max_in_seq_len, int max_out_seq_len, Tensor(b!) output_token_ids, Tensor(c!) output_beam_ids, "
    f"{POOL}) -> (Tensor, Tensor, Tensor)"
)
def beam_search_topk(
    scores: Tensor,
    finished: Tensor,
    pad_token_id: int,
    eos_token_id: Tensor,
    length_penalty: float,
    beam_size: int,
    batch_size: int,
    vocab_size: int,
    cur_len: int,
    early_stopping: bool,
    max_in_seq_len: int,
    max_out_seq_len: int,
    output_token_ids: Tensor,
    output_beam_ids: Tensor,
    pool_count: Tensor,
    pool_normed: Tensor,
    pool_least: Tensor,
    pool_ids: Tensor,
    pool_lengths: Tensor,
    pool_scores: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The next token of each beam: its score, its id and the beam it goes on from, each [batch x beams].

    scores: [batch x beams, vocabulary]; finished: [batch] bool; eos_token_id: int64; output ids:
    [max_out_seq_len, batch x beams]; pool: [batch], [batch x 2 beams], [batch], [batch x 2 beams,
    max_out_seq_len], [batch x 2 beams] and the same. Up to 32 beams. An end that ranks behind the first
    `beam_size` continuations is dropped.
    """
    check(beam_size <= 32, "beam size is not supported!")
    check(eos_token_id.dtype == torch.int64, "expected scalar type Long for the ends")
    check(scores.dtype == pool_scores.dtype, "expected scores and candidates of one dtype")
    top_score = torch.zeros(batch_size * beam_size, dtype=scores.dtype)
    top_token = torch.full((batch_size * beam_size,), int(pad_token_id), dtype=torch.long)
    top_beam = torch.zeros(batch_size * beam_size, dtype=torch.long)
    ends = set(eos_token_id.flatten().tolist())
    values, places = scores.view(batch_size, -1).topk(2 * beam_size, dim=1)
    length = cur_len + max_in_seq_len
    for row in range(batch_size):
        if finished[row]:
            continue
        base, pool = row * beam_size, row * 2 * beam_size
        if pool_count[row] == 0:
            pool_least[row] = torch.finfo(scores.dtype).max
        chosen = 0
        for rank, (value, place) in enumerate(zip(values[row].tolist(), places[row].tolist(), strict=True)):
            beam, token = divmod(place, vocab_size)
            if token not in ends:
                top_score[base + chosen] = value
                top_token[base + chosen] = token
                top_beam[base + chosen] = beam
                chosen += 1
                if chosen == beam_size:
                    break
                continue
            if rank >= beam_size:
                continue
            normed = _normed(value, length, length_penalty)
            slot = int(pool_count[row])
            if slot == beam_size:
                if normed < pool_least[row]:
                    break
                own = pool_normed[pool : pool + beam_size]
                slot = int(torch.nonzero(own == pool_least[row])[0])
                pool_count[row] -= 1
                own[slot] = normed
                pool_least[row] = own.min()
            at = pool + slot
            pool_ids[at, cur_len] = int(eos_token_id.flatten()[0])
            _trace_back(pool_ids[at], cur_len - 1, beam, base, output_token_ids, output_beam_ids)
            pool_lengths[at] = cur_len + 1
            pool_normed[at] = normed
            pool_scores[at] = value
            pool_least[row] = min(float(pool_least[row]), normed)
            pool_count[row] += 1
        best = _normed(float(top_score[base]), length, length_penalty)
        if pool_count[row] == beam_size and (early_stopping or pool_least[row] >= best):
            finished[row] = True
    return top_score, top_token, top_beam


@operator(
    "update_beam_indices_for_cache(Tensor src_cache_indices, Tensor beam_ids, int beam_size, int batch_size) "
    "-> Tensor"
)
def update_beam_indices_for_cache(indices: Tensor, beam_ids: Tensor, beams: int, batch: int) -> Tensor:
    """The beams' past, one step longer.

    indices: [steps, batch x beams]; beam_ids, within each row of the batch: [batch x beams]; result:
    [steps + 1, batch x beams], with the columns of the chosen beams and a last row of each beam itself.
    """
    own = torch.arange(beams, dtype=indices.dtype).repeat(batch)[None]
    columns = (beam_ids.view(batch, beams) + torch.arange(batch)[:, None] * beams).flatten()
    return torch.cat((indices[:, columns], own), 0)


@operator(
    "update_output_indices(Tensor top_beam_id, Tensor top_token_id, Tensor(a!) output_beam_ids, "
    "Tensor(b!) output_token_ids, Tensor(c!) finished, int time_step, int batch_size, int beam_size) -> ()"
)
def update_output_indices(
    beam_ids: Tensor,
    token_ids: Tensor,
    output_beam_ids: Tensor,
    output_token_ids: Tensor,
    finished: Tensor,
    step: int,
    batch_size: int,
    beam_size: int,
) -> None:
    """Writes a step's beams and tokens, [batch x beams] each, into the rows of all steps."""
    output_beam_ids[step] = beam_ids
    output_token_ids[step] = token_ids


@operator(
    "beam_search_finalize(Tensor(a!) candidate_num_beams, Tensor(b!) candidate_sequence_lengths, "
    "Tensor(c!) candidate_output_ids, Tensor(d!) candidate_score, Tensor(e!) candidate_normed_scores, "
    "Tensor output_beam_ids, Tensor output_token_ids, Tensor top_score, Tensor finished, "
    "float length_penalty, int max_in_seq_len, int max_out_seq_len, int batch_size, int beam_size, "
    "int out_sentence_number, int cur_len, int pad_token_id) -> Tensor"
)
def beam_search_finalize(
    pool_count: Tensor,
    pool_lengths: Tensor,
    pool_ids: Tensor,
    pool_scores: Tensor,
    pool_normed: Tensor,
    output_beam_ids: Tensor,
    output_token_ids: Tensor,
    top_score: Tensor,
    finished: Tensor,
    length_penalty: float,
    max_in_seq_len: int,
    max_out_seq_len: int,
    batch_size: int,
    beam_size: int,
    out_sentence_number: int,
    cur_len: int,
    pad_token_id: int,
) -> Tensor:
    """The best sentences: [batch x out_sentence_number, max_in_seq_len + max_out_seq_len], the prompt's part
    not yet filled in. The beams of rows that are not finished join the candidates."""
    result = torch.full(
        (batch_size * out_sentence_number, max_in_seq_len + max_out_seq_len),
        int(pad_token_id),
        dtype=torch.long,
    )
    last = cur_len - 1
    for row in range(batch_size):
        base, pool = row * beam_size, row * 2 * beam_size
        if not finished[row]:
            for beam in range(beam_size):
                at = pool + int(pool_count[row])
                _trace_back(pool_ids[at], last, beam, base, output_token_ids, output_beam_ids)
                score = float(top_score[base + beam])
                pool_lengths[at] = cur_len
                pool_normed[at] = _normed(score, max_in_seq_len + last, length_penalty)
                pool_scores[at] = score
                pool_count[row] += 1
        count = int(pool_count[row])
        order = torch.argsort(pool_normed[pool : pool + count], descending=True, stable=True)
        for place, candidate in enumerate(order[:out_sentence_number].tolist()):
            length = int(pool_lengths[pool + candidate])
            sentence = pool_ids[pool + candidate, :length]
            result[row * out_sentence_number + place, max_in_seq_len : max_in_seq_len + length] = sentence
    return result


@operator("update_output_sequence(Tensor input_ids, Tensor(a!) output_ids, int batch_size) -> Tensor(a!)")
def update_output_sequence(input_ids: Tensor, output_ids: Tensor, batch_size: int) -> Tensor:
    """Fills in the prompts; input_ids: [batch x beams, prompt], output_ids: [batch x sentences, length]."""
    beams, sentences = input_ids.shape[0] // batch_size, output_ids.shape[0] // batch_size
    rows = torch.arange(output_ids.shape[0]) // sentences * beams
    output_ids[:, : input_ids.shape[1]] = input_ids[rows]
    return output_ids
