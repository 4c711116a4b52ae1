from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
)

from rlzoo import noise
from rlzoo.config.model import BackboneConfig
from rlzoo.engine import sampler
from rlzoo.engine.protocol import SampleRequest, Samples
from rlzoo.errors import UserError
from rlzoo.model.backbone import Backbone
from rlzoo.model.log_probs import policy_forward
from tests.backbones import *  # noqa: F403  these tests take their backbones from there, not the runs'
from tests.models import random_adapter, write_model
from tests.sampling import THETAS, named, sample

TEXTS = ["3+4=", "sort 52413: ", "x", "12-7="]


def request(backbone: Backbone, seed: int = 0, **changes: object) -> SampleRequest:
    base = SampleRequest(
        policy=named(random_adapter(backbone, seed)),
        prompts=[backbone.encode(text) for text in TEXTS],
        group_size=5,
        max_new_tokens=20,
        seed=seed,
        step=3,
        prompt_keys=[10, 11, 12, 13],
        temperature=1.3,
    )
    return replace(base, **changes)


def company(backbone: Backbone) -> list[SampleRequest]:
    """Requests that differ in everything."""
    first = request(backbone, 1)
    return [
        first,
        request(backbone, 2, prompts=[backbone.encode("a much longer prompt than the others: 1+1=")], prompt_keys=[4]),
        request(backbone, 3, policy=named(None), temperature=0.8, max_new_tokens=3),
        request(backbone, 4, greedy=True, group_size=1),
        request(backbone, 5, policy=first.policy, group_size=2, max_new_tokens=33),  # an adapter shared by two requests
        request(backbone, 6, policy=named(None), step=0),
    ]


def check_same(one: Samples, other: Samples) -> None:
    assert torch.equal(one.response_NT, other.response_NT)
    assert torch.equal(one.mask_NT, other.mask_NT)
    assert torch.equal(one.finished_N, other.finished_N)
    torch.testing.assert_close(one.logp_NT, other.logp_NT, rtol=0, atol=2e-5)


def check_form(backbone: Backbone, asked: SampleRequest, got: Samples) -> None:
    """Everything `Samples` promises."""
    rows, width = got.response_NT.shape
    length_N = got.mask_NT.sum(dim=1)
    assert rows == len(asked.prompts) * asked.group_size
    assert width == length_N.max() <= asked.max_new_tokens and length_N.min() >= 1
    assert torch.equal(got.mask_NT, torch.arange(width) < length_N[:, None])
    ends = torch.isin(got.response_NT, torch.tensor(backbone.end_ids)) & got.mask_NT
    assert torch.equal(ends.any(dim=1), got.finished_N)
    last = torch.zeros_like(ends).scatter(1, length_N[:, None] - 1, True)
    assert not (ends & ~last).any(), "nothing follows an end token"
    assert (length_N[~got.finished_N] == asked.max_new_tokens).all(), "only the limit cuts a response"
    assert not got.response_NT[~got.mask_NT].any() and not got.logp_NT[~got.mask_NT].any()
    assert (got.response_NT.dtype, got.mask_NT.dtype, got.logp_NT.dtype) == (torch.int64, torch.bool, torch.float32)


def scored(backbone: Backbone, asked: SampleRequest, got: Samples) -> Tensor:
    group_B = torch.arange(len(asked.prompts)).repeat_interleave(asked.group_size)
    theta = THETAS.get(asked.policy)
    stack = None if theta is None else backbone.stack([theta])
    slot_B = torch.zeros_like(group_B)
    with torch.no_grad():
        out = policy_forward(
            backbone, stack, slot_B, asked.prompts, group_B, got.response_NT, got.mask_NT, temperature=asked.temperature
        )
    return out.logp_BT


def test_log_probs_are_those_the_trainer_computes(backbone: Backbone) -> None:
    asked = company(backbone)
    for one, got in zip(asked, sample(backbone, asked), strict=True):
        check_form(backbone, one, got)
        assert (scored(backbone, one, got) - got.logp_NT).abs().max() < 2e-5


def test_a_request_gets_the_same_samples_in_any_company(backbone: Backbone) -> None:
    asked, state = company(backbone), torch.random.get_rng_state()
    together = sample(backbone, asked)
    for one, got in zip(asked, together, strict=True):
        check_same(sample(backbone, [one])[0], got)
    for one, other in zip(together, reversed(sample(backbone, asked[::-1])), strict=True):
        check_same(one, other)
    for max_rows in (1, 7, 40):
        for one, other in zip(together, sample(backbone, asked, max_rows=max_rows), strict=True):
            check_same(one, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_part_of_a_request_is_that_part_of_its_answer(nf4: Backbone) -> None:
    whole = request(nf4)
    got = sample(nf4, [whole])[0]
    part = sample(nf4, [replace(whole, prompts=whole.prompts[2:3], prompt_keys=[12], group_size=3)])[0]
    width = part.response_NT.shape[1]
    assert torch.equal(part.response_NT, got.response_NT[10:13, :width])
    short = sample(nf4, [replace(whole, max_new_tokens=2)])[0]
    assert torch.equal(short.response_NT, got.response_NT[:, :2])


def test_seed_step_prompt_and_sample_each_change_the_draw(nf4: Backbone) -> None:
    base = request(nf4, prompts=[nf4.encode("3+4=")] * 2, prompt_keys=[1, 2], group_size=4)
    got = sample(nf4, [base, replace(base, seed=9), replace(base, step=9), replace(base, prompt_keys=[3, 4])])
    responses = [tuple(row) for answer in got for row in answer.response_NT.tolist()]
    assert len(set(responses)) == len(responses) == 32
    same = sample(nf4, [replace(base, prompt_keys=[1, 1])])[0].response_NT
    assert torch.equal(same[:4], same[4:])


def test_tokens_follow_the_softmax_of_the_tempered_logits(fp32: Backbone) -> None:
    """Chi-square of the first token over 4000 samples, and of the second given the likeliest first."""
    n, temperature, theta = 4000, 0.7, random_adapter(fp32, 1)
    prompt = fp32.encode("3+4=")
    got = sample(
        fp32, [SampleRequest(named(theta), [prompt], n, 2, seed=5, step=0, prompt_keys=[0], temperature=temperature)]
    )[0]
    favourite = int(got.response_NT[:, 0].mode().values)
    after = got.response_NT[got.response_NT[:, 0] == favourite, 1]
    for context, drawn in ((prompt, got.response_NT[:, 0]), ([*prompt, favourite], after)):
        tokens = torch.tensor([context])
        with torch.no_grad(), fp32.adapters(fp32.stack([theta]), torch.tensor([0])):
            logits = fp32.logits(fp32.states(tokens, torch.ones_like(tokens)))[0, -1]
        expected = (logits / temperature).double().softmax(0) * len(drawn)
        counts = torch.bincount(drawn, minlength=fp32.vocab_size).double()
        rare = expected < 5
        assert (~rare).sum() > 5 and len(drawn) > 300
        observed = torch.cat([counts[~rare], counts[rare].sum()[None]])
        wanted = torch.cat([expected[~rare], expected[rare].sum()[None]])
        assert stats.chisquare(observed.numpy(), wanted.numpy()).pvalue > 1e-3


def test_greedy_is_hugging_faces_greedy(qwen_folder: Path, fp32: Backbone) -> None:
    model = AutoModelForCausalLM.from_pretrained(qwen_folder, dtype=torch.float32).eval()
    asked = request(fp32, policy=named(None), greedy=True, group_size=2, temperature=1.0, max_new_tokens=30)
    got = sample(fp32, [asked, request(fp32, 1)])[0]
    assert torch.equal(got.response_NT[0::2], got.response_NT[1::2])
    for prompt, response, mask in zip(asked.prompts, got.response_NT[::2], got.mask_NT[::2], strict=True):
        tokens = torch.tensor([prompt])
        theirs = model.generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=30, pad_token_id=0
        )
        assert response[mask].tolist() == theirs[0, len(prompt) :].tolist()


def test_an_adapter_changes_what_is_sampled_and_a_fresh_one_does_not(backbone: Backbone) -> None:
    base, fresh, trained = sample(
        backbone,
        [
            request(backbone, policy=named(theta))
            for theta in (None, backbone.new_adapter(8), random_adapter(backbone, 8))
        ],
    )
    check_same(base, fresh)
    assert base.response_NT.shape != trained.response_NT.shape or not torch.equal(base.response_NT, trained.response_NT)


def test_rows_that_end_early_leave_the_batch(nf4: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch shrinks; when all have ended, nothing more is decoded; and the threshold changes no sample."""
    widths: list[int] = []
    states = nf4.states

    def counting(input_ids: Tensor, *args: object) -> Tensor:
        widths.append(input_ids.shape[0])
        return states(input_ids, *args)

    monkeypatch.setattr(nf4, "states", counting)
    monkeypatch.setattr(nf4, "end_ids", list(range(1, 40)))  # about every third token ends a response
    asked = [request(nf4, seed, max_new_tokens=60, group_size=20) for seed in (1, 2)]
    got = sample(nf4, asked)
    longest = max(answer.response_NT.shape[1] for answer in got)
    assert all(answer.finished_N.all() for answer in got) and longest < 60
    assert widths[0] == 8 and widths[1] <= 160 and widths[-1] < 20 and len(widths) == longest
    assert widths[1:] == sorted(widths[1:], reverse=True)
    monkeypatch.setattr(sampler, "COMPACT_BELOW", 0.0)
    cut = request(nf4, 3, max_new_tokens=2, group_size=20)  # its rows stay in the batch and go on to sample end tokens
    *kept, short = sample(nf4, [*asked, cut])
    for one, other in zip(got, kept, strict=True):
        check_same(one, other)
    check_form(nf4, cut, short)
    assert not short.finished_N.all()


@pytest.mark.parametrize(
    ("alive", "slots", "staying"),
    [
        ("0100 1100 0000", "0000 1111 3333", [0, 1, 4, 5]),  # two of each that goes on
        ("0110 1111 1100", "0000 1111 3333", None),  # it would be four of each
        ("0001 0111", "0000 1111", [0, 1, 3, 5, 6, 7]),
        ("0011 1", "0000 1", [2, 3, 4]),  # of the other one there are no two
        ("1111 0001 0001 0001", "0000 1111 2222 3333", [0, 1, 2, 3, 7, 11, 15]),  # 16 for 7 are too many
        ("0100 1100 0000", None, [1, 4, 5]),  # nothing is merged: whoever is done leaves
        ("0111 1111 1111", None, None),  # 11 of 12 are too many
    ],
)
def test_which_rows_stay(alive: str, slots: str | None, staying: list[int] | None) -> None:
    alive_N, slot_N = (
        None if word is None else torch.tensor([int(c) for c in word.replace(" ", "")]) for word in (alive, slots)
    )
    assert alive_N is not None
    kept = sampler._staying(alive_N.bool(), int(alive_N.sum()), slot_N)
    assert staying == (None if kept is None else kept.tolist())


def test_a_prompt_is_prefilled_once(nf4: Backbone) -> None:
    fed: list[tuple[int, ...]] = []
    hook = nf4.model.get_input_embeddings().register_forward_hook(lambda m, args, out: fed.append(tuple(args[0].shape)))
    sample(nf4, [request(nf4, max_new_tokens=30)])
    hook.remove()
    assert fed[0] == (4, 12) and fed[1] == (20, 1) and all(shape[1] == 1 for shape in fed[1:])


def test_sliding_windows_work_too(tmp_path: Path) -> None:
    """A model whose attention reaches back 6 tokens, decoded beyond that."""
    folder = write_model(MistralForCausalLM, MistralConfig, tmp_path, sliding_window=6)
    made = Backbone.load(BackboneConfig(model=str(folder), precision="fp32", device="cpu"))
    asked = [request(made, 1), request(made, 2)]
    for one, got in zip(asked, sample(made, asked), strict=True):
        assert got.response_NT.shape[1] > 12
        assert (scored(made, one, got) - got.logp_NT).abs().max() < 2e-5


def test_a_model_with_an_attention_of_its_own(tmp_path: Path) -> None:
    """ALiBi's biases are made for the tokens that are there: keys with room beyond them would not fit."""
    folder = write_model(BloomForCausalLM, BloomConfig, tmp_path, n_head=4, n_layer=2)
    made = Backbone.load(BackboneConfig(model=str(folder), precision="fp32", device="cpu"))
    asked = request(made, 1)
    got = sample(made, [asked])[0]
    assert (scored(made, asked, got) - got.logp_NT).abs().max() < 2e-5


def test_rows_that_are_done_do_not_pass_the_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of 61 and 30 tokens in a context of 64, the second of which goes on for 30 more; both stay in the batch.

    Learned positions are looked up in a table of 64."""
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64, "max_position_embeddings": 64}
    folder = write_model(GPT2LMHeadModel, GPT2Config, tmp_path, **sizes)
    made = Backbone.load(BackboneConfig(model=str(folder), precision="fp32", device="cpu"))
    monkeypatch.setattr(made, "end_ids", [-1])
    monkeypatch.setattr(sampler, "COMPACT_BELOW", 0.0)
    words = [made.encode("1+" * 30 + "1"), made.encode("1+" * 15)]
    asked = [
        request(made, 1, prompts=[prompt], prompt_keys=[4], group_size=1, max_new_tokens=limit)
        for prompt, limit in zip(words, (3, 30), strict=True)
    ]
    for one, got in zip(asked, sample(made, asked), strict=True):
        check_same(sample(made, [one])[0], got)


def test_several_end_tokens(nf4: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nf4, "end_ids", [1, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39])
    asked = request(nf4, group_size=30)
    got = sample(nf4, [asked])[0]
    check_form(nf4, asked, got)
    assert len(set(got.response_NT[range(120), got.mask_NT.sum(1) - 1][got.finished_N].tolist())) > 3


def test_no_requests_no_samples(nf4: Backbone) -> None:
    assert sample(nf4, []) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "for the likeliest token set greedy"),
        ({"temperature": float("nan")}, "temperature must be above 0"),
        ({"group_size": 0}, "each must be at least 1"),
        ({"max_new_tokens": 0}, "each must be at least 1"),
        ({"prompts": [], "prompt_keys": []}, "0 prompts"),
        ({"prompts": [[5], [], [5], [5]]}, "a prompt is empty"),
        ({"max_new_tokens": 160 - 11}, r"a prompt of 12 tokens with max_new_tokens 149 exceeds .* context of 160"),
    ],
)
def test_what_cannot_be_sampled_is_said_before_anything_is(
    nf4: Backbone, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        sample(nf4, [request(nf4), request(nf4, **changes)])


def test_a_broken_run_does_not_reach_its_neighbours(nf4: Backbone) -> None:
    asked = company(nf4)
    broken = replace(asked[1], policy=named(THETAS[asked[1].policy] * float("nan")))
    got = sample(nf4, [asked[0], broken, *asked[2:]])
    assert got[1].logp_NT[got[1].mask_NT].isnan().all()
    for one, other in zip(sample(nf4, asked), got, strict=True):
        if one.response_NT.shape[0] != 5:  # all but the broken request
            check_same(one, other)


def test_drawing_in_blocks_has_the_same_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chi-square of 20,000 tokens from 11 log-probs, drawn whole and in blocks of 4 (the last of them has 3)."""
    logp_V = torch.tensor([3.0, 0, 1, -1, 2, 0.5, 0, 0, 1, 2.5, -0.5]).log_softmax(0)
    n = 20_000
    places = noise.bits(7, torch.arange(n), 3)[:, None]
    found = []
    for blocks_from in (4096, 0):
        monkeypatch.setattr(sampler, "BLOCKS_FROM", blocks_from)
        monkeypatch.setattr(sampler, "BLOCK", 4)
        token_N = sampler.choose(logp_V.expand(n, -1), places, torch.ones(n, 1))
        count_V = token_N.bincount(minlength=11)
        expected_V = n * logp_V.exp()
        assert float(((count_V - expected_V).square() / expected_V).sum()) < 29.6  # 10 degrees of freedom, p = 0.001
        found.append(token_N)
    assert not torch.equal(*found)
    greedy = sampler.choose(torch.tensor([[0.0, 2, 0, 0, 1.9, 1.9, 1.9, 1.9]]), places[:1], torch.zeros(1, 1))
    assert greedy.item() == 1  # the second block has more probability, but no token of it has as much


def test_a_large_vocabulary_is_sampled_in_any_company(nf4: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "BLOCKS_FROM", 0)
    monkeypatch.setattr(sampler, "BLOCK", 16)
    one, two = request(nf4, 1), request(nf4, 2, greedy=True)
    together = sample(nf4, [one, two])
    monkeypatch.setattr(sampler, "LOGITS_AT_ONCE", 6 * nf4.vocab_size)  # a group at a time
    check_same(together[0], sample(nf4, [one])[0])
    monkeypatch.setattr(sampler, "BLOCKS_FROM", 4096)
    check_same(together[1], sample(nf4, [two])[0])  # greedy is greedy


@pytest.mark.parametrize(
    ("groups", "slots", "most", "rows"),
    [
        ([8] * 10, [0] * 4 + [1] * 4 + [2] * 2, 64, [64, 16]),  # an adapter's rows stay together
        ([8] * 8, [-1] * 2 + [0] * 2 + [1] * 2 + [2] * 2, 48, [32, 32]),  # two batches are needed: of the same size
        ([8] * 5, [0] * 3 + [1] * 2, 20, [16, 16, 8]),  # one has 24 rows: groups stay together
        ([8, 3, 3], [0, 1, 1], 4, [8, 3, 3]),  # a group of 8 is not divided
        ([2, 3, 4], [0, 1, 2], 9, [9]),
    ],
)
def test_how_rows_are_cut_into_batches(groups: list[int], slots: list[int], most: int, rows: list[int]) -> None:
    group_size = torch.tensor(groups)
    batches = sampler._batches(group_size, torch.tensor(slots), most)
    assert [int(group_size[first:last].sum()) for first, last in batches] == rows
    assert [first for first, _ in batches] == [0, *(last for _, last in batches[:-1])] and batches[-1][1] == len(groups)
