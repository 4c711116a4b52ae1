"""Tokens that exist and tokens that are learned from: on every path, log-probs are the plain model's on the whole row.

A row is a prompt, then tokens of which some were written by an environment. They are attended to and counted as
positions; log-probs, values and entropy are given for the others.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from rlzoo.config.model import BackboneConfig
from rlzoo.engine.tokens import Tokens
from rlzoo.model.backbone import Backbone
from rlzoo.model.log_probs import ForwardOutput, policy_forward
from tests.models import random_adapter

PROMPTS = ["3+4=", "sort 52413"]
GROUP = torch.tensor([0, 0, 1, 1])
SLOT = torch.tensor([0, 0, 0, 1])
EXISTS = torch.arange(8) < torch.tensor([8, 5, 7, 6])[:, None]
LEARN = torch.tensor(
    [
        [1, 1, 0, 0, 1, 0, 1, 0],  # two answers of an environment, and its last word after the policy's last token
        [0, 0, 1, 1, 1, 0, 0, 0],  # it speaks first
        [0, 1, 1, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],  # nothing to learn from
    ]
).bool()
PATHS = ["padded", "packed", "cpu"]


def token_BT(backbone: Backbone) -> Tensor:
    drawn = torch.randint(3, 90, EXISTS.shape, generator=torch.Generator().manual_seed(1))
    return torch.where(EXISTS, drawn, backbone.vocab_size + 5)  # padding may be anything


def run(
    backbone: Backbone, path: str, thetas: list[Tensor], grad: bool = False, weigh: Tensor = EXISTS
) -> tuple[ForwardOutput, Tensor | None]:
    """Everything a pass gives and, with `grad`, the gradient of a weighted sum of it."""
    stack = backbone.stack(thetas, requires_grad=grad) if thetas else None
    out = policy_forward(
        backbone,
        stack,
        SLOT if thetas else None,
        [backbone.encode(prompt) for prompt in PROMPTS],
        GROUP,
        token_BT(backbone),
        EXISTS,
        LEARN,
        temperature=0.7,
        value=bool(thetas),
        entropy=True,
        collision=True,
        packed=path != "padded",
    )
    if stack is None or not grad:
        return out, None
    assert out.value_BT is not None and out.entropy_BT is not None
    weight = torch.linspace(0.5, 1.5, 8) * weigh
    (weight * (out.logp_BT + 0.3 * out.value_BT.square() + 0.1 * out.entropy_BT)).sum().backward()
    return out, stack.grads()


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    return request.param


def use(path: str, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    assert backbone.packs and backbone._cpu_layers is not None
    if path == "packed":
        monkeypatch.setattr(backbone, "_cpu_layers", None)


@torch.no_grad()
def by_hand(backbone: Backbone, models: list[torch.nn.Module], thetas: list[Tensor]) -> ForwardOutput:
    """Each row alone and whole through the plain model of its adapter; the learned positions picked afterwards."""
    columns = [torch.zeros(EXISTS.shape) for _ in range(4)]
    tokens = token_BT(backbone)
    for b, length in enumerate(EXISTS.sum(dim=1).tolist()):
        prompt = backbone.encode(PROMPTS[int(GROUP[b])])
        whole = torch.tensor([prompt + tokens[b, :length].tolist()])
        out = models[int(SLOT[b])](whole, output_hidden_states=True)
        logp_TV = (out.logits[0, len(prompt) - 1 : -1].float() / 0.7).log_softmax(dim=1)
        columns[0][b, :length] = logp_TV.gather(1, tokens[b, :length, None])[:, 0]
        if thetas:
            head = thetas[int(SLOT[b])][-backbone.hidden_size - 1 :]
            columns[1][b, :length] = out.hidden_states[-1][0, len(prompt) - 1 : -1] @ head[:-1] + head[-1]
        columns[2][b, :length] = -(logp_TV.exp() * logp_TV).sum(dim=1)
        columns[3][b, :length] = logp_TV.exp().square().sum(dim=1)
    return ForwardOutput(*(torch.where(LEARN, column, 0) for column in columns))


@pytest.mark.parametrize("adapted", [False, True])
def test_holes_in_learn(
    adapted: bool, path: str, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against transformers' model with the same weights, dequantized, and PEFT's with the adapters as saved."""
    use(path, backbone, monkeypatch)
    thetas = [random_adapter(backbone, seed) for seed in (1, 2)] if adapted else []
    models = []
    for k in range(2):
        model = AutoModelForCausalLM.from_pretrained(backbone.config.model, dtype=torch.float32).eval()
        for linear in backbone._linears:
            model.get_submodule(linear.name).weight.data = linear.dequantized(torch.float32)
        if adapted:
            backbone.save_adapter(thetas[k], tmp_path / str(k))
            model = PeftModel.from_pretrained(model, tmp_path / str(k)).eval()
        models.append(model)
    out, _ = run(backbone, path, thetas)
    for name, expected in vars(by_hand(backbone, models, thetas)).items():
        if name != "value_BT" or adapted:
            torch.testing.assert_close(getattr(out, name), expected, rtol=0, atol=3e-5)
            assert not getattr(out, name)[~LEARN].any() and getattr(out, name)[LEARN].all()


def test_gradients_flow_through_what_is_not_learned(
    path: str, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of the learned tokens' sum is the same when all tokens are scored and the others weigh 0."""
    thetas = [random_adapter(backbone, seed) for seed in (1, 2)]
    use(path, backbone, monkeypatch)
    _, ours = run(backbone, path, thetas, grad=True)
    learned = LEARN.float()
    with monkeypatch.context() as patched:
        patched.setattr("tests.model.test_two_masks.LEARN", EXISTS)
        _, expected = run(backbone, "padded", thetas, grad=True, weigh=learned)
    assert ours is not None and expected is not None
    assert expected[0].norm() > 1 and not expected[1].any() and not ours[1].any()  # run 1 learns from nothing
    assert (ours[0] - expected[0]).norm() / expected[0].norm() < 1e-5


def test_bfloat16(path: str, qwen_folder: Path) -> None:
    """To bfloat16's accuracy: on the whole row and with holes, the same log-probs."""
    made = Backbone.load(BackboneConfig(model=str(qwen_folder), precision="bf16", compute="bf16", device="cpu"))
    plain = AutoModelForCausalLM.from_pretrained(qwen_folder, dtype=torch.float32).eval()
    out, _ = run(made, path, [])
    error = (out.logp_BT - by_hand(made, [plain] * 2, []).logp_BT)[LEARN].abs()
    assert error.mean() < 0.1


@pytest.mark.parametrize("path", ["padded", "packed"])
def test_a_hole_in_exists_is_refused(path: str, fp32: Backbone) -> None:
    exists = torch.tensor([[True, False, True]])
    with pytest.raises(ValueError, match="exists_BT has a hole"):
        policy_forward(fp32, None, None, [[5]], torch.tensor([0]), exists.long(), exists, packed=path == "packed")
    with pytest.raises(ValueError, match="exists_NT has a hole"):
        Tokens([[5]], torch.tensor([0]), exists.long(), exists, exists)
    with pytest.raises(ValueError, match="learn_NT marks a token that does not exist"):
        Tokens([[5]], torch.tensor([0]), exists.long(), exists & False, exists)
    with pytest.raises(ValueError, match=r"one of 1 prompts for each of 1 rows, got \[1\]"):
        Tokens([[5]], torch.tensor([1]), exists.long(), exists & False, exists & False)


def test_rows_and_cat_keep_what_belongs_together() -> None:
    exists = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0]]).bool()
    learn = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 1, 0]]).bool()
    made = Tokens([[1], [2, 2]], torch.tensor([0, 1, 1]), torch.arange(9).view(3, 3), exists, learn)
    assert made.length_N.tolist() == [4, 3, 4] and made.size == 11
    some = made.rows(torch.tensor([2, 1]))
    assert some.prompts == [[2, 2]] and some.group_N.tolist() == [0, 0]
    assert some.token_NT.tolist() == [[6, 7], [3, 4]] and some.learn_NT.tolist() == [[False, True], [True, False]]
    both = Tokens.cat([made, some])
    assert both.prompts == [[1], [2, 2], [2, 2]] and both.group_N.tolist() == [0, 1, 1, 2, 2]
    assert both.token_NT.shape == (5, 3) and both.exists_NT.sum(dim=1).tolist() == [3, 1, 2, 2, 1]
