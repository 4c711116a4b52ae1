"""Fast paths of the forward pass equal the plain ones in values and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
)

from rlzoo.config.model import BackboneConfig
from rlzoo.errors import UserError
from rlzoo.model import log_probs
from rlzoo.model.backbone import Backbone
from rlzoo.model.log_probs import ForwardOutput, policy_forward
from rlzoo.model.packing import ATTENTION
from tests.models import random_adapter, write_model

GROUPS = ["3+4=", "sort 52413", "x"]
OWNERS = [0, 0, 0, 1, 1, 2, 2, 2]  # which prompt each row answers
SLOTS = [0, 0, 0, 0, 0, 1, 1, 1]
LENGTHS = [5, 2, 7, 1, 0, 3, 7, 4]


def run(backbone: Backbone, packed: bool, order: list[int] | None = None) -> tuple[ForwardOutput, Tensor]:
    """Everything a pass gives for eight rows, and the gradient of a weighted sum of it."""
    order = order or list(range(8))
    prompts = [backbone.encode(text) for text in GROUPS]
    response_BT = torch.randint(3, 90, (8, 7), generator=torch.Generator().manual_seed(1))
    mask_BT = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
    stack = backbone.stack([random_adapter(backbone, seed) for seed in (1, 2)], requires_grad=True)
    out = policy_forward(
        backbone,
        stack,
        torch.tensor(SLOTS),
        prompts,
        torch.tensor(OWNERS)[order],
        response_BT[order],
        mask_BT[order],
        temperature=torch.linspace(0.5, 1.5, 8)[order],
        value=True,
        entropy=True,
        collision=True,
        packed=packed,
    )
    assert out.value_BT is not None and out.entropy_BT is not None
    (out.logp_BT + 0.3 * out.value_BT.square() + 0.1 * out.entropy_BT).sum().backward()
    return out, stack.grads()


def assert_same(one: tuple[ForwardOutput, Tensor], other: tuple[ForwardOutput, Tensor]) -> None:
    for name, x in vars(one[0]).items():
        torch.testing.assert_close(getattr(other[0], name), x, rtol=0, atol=2e-5)
    assert one[1].norm(dim=1).min() > 1
    assert ((other[1] - one[1]).norm(dim=1) / one[1].norm(dim=1)).max() < 1e-5


def test_shared_prompts_change_nothing(backbone: Backbone) -> None:
    assert_same(run(backbone, packed=False), run(backbone, packed=True))


def test_rows_of_a_prompt_need_not_stand_together(backbone: Backbone) -> None:
    """Sorted by length within each adapter, the groups are mixed."""
    order = [4, 3, 1, 0, 2, 5, 7, 6]
    plain, shared = run(backbone, packed=False), run(backbone, packed=True, order=order)
    assert_same(
        plain, (ForwardOutput(*(x[torch.tensor(order).argsort()] for x in vars(shared[0]).values())), shared[1])
    )


def test_a_line_holds_every_prompt_once_and_no_padding_but_between_runs(fp32: Backbone) -> None:
    """Run 0: prompts of 4 and 10 tokens, responses of 5, 2, 7, 1 and 0, the last of each not fed: 14 + 11. Run 1: a
    prompt of 1 token, responses of 3, 7 and 4: 1 + 11, and 13 of padding, as both take as much of the line."""
    fed: list[tuple[int, ...]] = []
    hook = fp32.model.get_input_embeddings().register_forward_hook(
        lambda m, args, out: fed.append(tuple(args[0].shape))
    )
    run(fp32, packed=True)
    hook.remove()
    assert fed == [(1, 2 * 25)]


def test_responses_of_one_token_need_the_prompt_only(fp32: Backbone) -> None:
    group_B = torch.zeros(3, dtype=torch.long)
    fed = (
        None,
        None,
        [fp32.encode("3+4=")],
        group_B,
        torch.tensor([[5], [6], [7]]),
        torch.ones(3, 1, dtype=torch.bool),
    )
    plain, shared = (policy_forward(fp32, *fed, packed=packed).logp_BT for packed in (False, True))
    torch.testing.assert_close(shared, plain, rtol=0, atol=2e-5)


@pytest.mark.parametrize("tokens", [1, 3, 28])
def test_chunks_of_the_head_change_nothing(tokens: int, fp32: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(fp32, packed=False)
    monkeypatch.setattr(log_probs, "CHUNK_ELEMENTS", tokens * fp32.vocab_size)
    assert_same(whole, run(fp32, packed=False))


def test_all_logits_never_exist_at_once(fp32: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """29 tokens go through the head five at a time, with gradient too."""
    monkeypatch.setattr(log_probs, "CHUNK_ELEMENTS", 5 * fp32.vocab_size + 1)
    rows: list[int] = []
    hook = fp32.model.get_output_embeddings().register_forward_hook(lambda m, args, out: rows.append(len(out)))
    run(fp32, packed=False)
    hook.remove()
    assert sum(LENGTHS) == 29
    assert sorted(rows) == [4, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5]  # forward, and again in the backward pass


@pytest.mark.parametrize(
    ("model", "config", "changes", "line"),
    [
        (Gemma2ForCausalLM, Gemma2Config, {"final_logit_softcapping": 2.0, "head_dim": 16, "sliding_window": 6}, False),
        (GraniteForCausalLM, GraniteConfig, {"logits_scaling": 3.0}, True),
        (MistralForCausalLM, MistralConfig, {"sliding_window": 6}, False),
        (MistralForCausalLM, MistralConfig, {"sliding_window": None, "num_key_value_heads": 1}, True),
        (GPT2LMHeadModel, GPT2Config, {"n_embd": 32, "n_head": 2, "n_layer": 2}, True),
    ],
)
def test_other_heads_and_windows(
    model: type[PreTrainedModel], config: type, changes: dict[str, object], line: bool, tmp_path: Path
) -> None:
    """Logits that the model caps or scales after its head, and attention that does not reach back to the prompt."""
    folder = write_model(model, config, tmp_path, **changes)
    made = Backbone.load(BackboneConfig(model=str(folder), precision="fp32", device="cpu"))
    tokens = torch.tensor([made.encode("sort 52413")])
    with torch.no_grad():
        ours = made.logits(made.states(tokens, torch.ones_like(tokens)))
        torch.testing.assert_close(ours, made.model(tokens).logits, rtol=0, atol=1e-5)
    assert made.packs is line
    assert_same(run(made, packed=False), run(made, packed=True))


def test_packed_rows_that_give_other_logits_are_refused(fp32: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one percent of the largest state, say."""
    states = fp32._packed_states
    monkeypatch.setattr(fp32, "_packed_states", lambda *of: states(*of) + 0.01 * states(*of).abs().max())
    with pytest.raises(UserError, match=r"other logits when its rows are packed .* set engine.fast_path to 'off'"):
        fp32._compare_packed()


def test_an_unknown_way_to_make_logits_is_refused(qwen_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The untouched model's own logits decide, here those of a model that squares them."""
    forward = Qwen2ForCausalLM.forward

    def squared(self: object, **kwargs: object) -> object:
        output = forward(self, **kwargs)
        output.logits = output.logits.square()
        return output

    monkeypatch.setattr(Qwen2ForCausalLM, "forward", squared)
    with pytest.raises(UserError, match="Qwen2ForCausalLM computes other logits with padding than without"):
        Backbone.load(BackboneConfig(model=str(qwen_folder), precision="fp32", device="cpu"))


def test_the_fast_path_can_be_switched_off(qwen_folder: Path) -> None:
    made = Backbone.load(BackboneConfig(model=str(qwen_folder), precision="fp32", device="cpu"))
    assert made.path == made.describe()["path"] == "packed, cpu"
    fast = run(made, packed=True)
    made.use_fast_path("off")
    assert made.path == "padded" and made.model.config._attn_implementation == "sdpa"
    assert_same(run(made, packed=True), fast)
    made.use_fast_path("auto")
    assert made.path == "packed, cpu" and made.model.config._attn_implementation == ATTENTION
