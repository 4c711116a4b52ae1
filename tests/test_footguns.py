"""Known mistakes of other frameworks, each with the tests that show its absence here.

Most of those tests stand where the thing itself is tested; this file points to them, and holds the ones that are about
nothing but the mistake.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
import torch

from advantages import GAE, Group
from objectives import get, update_metrics
from objectives.conformance import world as zoo
from objectives.parts import ClippedWeight
from rlzoo.config.model import LoraSettings
from rlzoo.config.run import RunConfig
from rlzoo.errors import UserError
from rlzoo.model.adapters import AdaptedLayer, AdapterLayout, init_adapter

ROOT = Path(__file__).parents[1]
PACKAGES = ("advantages", "objectives", "rlzoo")

FOOTGUNS: dict[str, tuple[str, ...]] = {
    "1 loss or gradient depends on micro-batches, ranks or padding": (
        "objectives/conformance/losses.py::check_micro_batches_add_up",
        "objectives/conformance/rollouts.py::check_padding_grows",
        "objectives/conformance/rollouts.py::check_rows_permute",
        "tests/engine/test_local.py::test_micro_batches_change_nothing",
        "tests/training/test_credit.py::test_weights_are_those_of_the_whole_update",
    ),
    "2 nothing that was compared was ever off-policy": (
        "tests/test_reductions.py::test_on_policy_the_ratio_and_the_clip_are_inert",
        "tests/config/test_run.py::test_rows_that_the_schedule_makes_identical_are_refused",
        "tests/test_footguns.py::test_on_policy_everything_is_the_weighted_score",
        "tests/test_footguns.py::test_gspo_with_a_clip_for_tokens_never_clips_and_the_metrics_say_so",
    ),
    "3 GSPO: forms that differ, reductions that do not fit, exponents that overflow": (
        "tests/test_papers.py::test_gspo_without_its_token_form_has_one_gradient_per_response",
        "objectives/conformance/losses.py::check_huge_log_ratios_stay_finite",
        "tests/test_footguns.py::test_a_sequence_ratio_with_another_aggregate_says_so_in_its_name",
    ),
    "4 CISPO's bound means two things": (
        "tests/test_profiles.py::test_the_same_name_means_different_bounds",
        "tests/test_footguns.py::test_an_unset_cap_lets_ratio_one_through",
        "tests/test_trl.py::test_cispo_with_epsilon_high_unset_is_capped_at_a_fifth",
    ),
    "5 degenerate groups": (
        "tests/advantages/test_estimate.py::TestGroup::test_equal_rewards_are_silent_whatever_rounding_leaves",
        "tests/advantages/test_estimate.py::TestGroup::test_group_of_one_has_no_credit",
        "tests/advantages/test_estimate.py::TestGroup::test_one_right_among_g",
        "tests/test_profiles_parts.py::test_the_only_right_answer_is_not_divided_by_rounding",
        "tests/test_profiles.py::test_profile_is_its_frameworks_formula",
    ),
    "6 dynamic sampling on shaped rewards, without end, or for free": (
        "tests/test_footguns.py::test_punished_lengths_do_not_make_a_group_worth_keeping",
        "tests/engine/test_local.py::test_dynamic_sampling_fills_the_step_and_pays_for_it",
        "tests/engine/test_local.py::test_a_step_whose_groups_are_all_silent_makes_no_update",
    ),
    "7 more than one loss mask": (
        "objectives/conformance/rollouts.py::check_masked_rows_are_not_there",
        "objectives/conformance/losses.py::check_nothing_outside_the_mask",
        "objectives/conformance/losses.py::check_all_masked_is_silent",
        "tests/engine/test_local.py::test_a_response_without_a_reward_is_no_response",
        "tests/engine/test_sampler.py::test_several_end_tokens",
    ),
    "8 GAE over padding and observations": (
        "tests/advantages/test_estimate.py::test_holes_change_nothing",
        "tests/advantages/test_estimate.py::TestGAE::test_returns_are_taken_before_whitening",
        "tests/advantages/test_estimate.py::TestGAE::test_lambda_1_without_values_is_reward_to_go",
    ),
    "9 dividing by a std that is nothing but a length penalty or a critic's noise": (
        "tests/advantages/test_estimate.py::TestGroup::test_small_shaped_differences_are_blown_up",
        "tests/test_footguns.py::test_an_all_right_batch_is_silent_where_its_spread_is_not_divided_by",
    ),
    "10 KL: values right, gradients wrong": (
        "tests/objectives/test_regularize.py::test_k1_as_a_loss_has_no_gradient_in_expectation",
        "tests/objectives/test_regularize.py::test_k2_and_the_straight_through_forms_follow_the_reverse_kl",
        "tests/objectives/test_regularize.py::test_k3_as_a_loss_follows_the_forward_kl",
        "tests/objectives/test_regularize.py::test_overflow",
        "tests/advantages/test_shape.py::test_kl_is_charged_token_by_token",
        "tests/test_profiles_parts.py::test_corrected_kl_follows_the_reverse_kl_on_policy",
        "tests/test_profiles_parts.py::test_kl_times_the_ratio_follows_it_off_policy_too",
    ),
    "11 the first update's ratio is not 1": (
        "tests/engine/test_local.py::test_the_sampler_and_the_trainer_agree",
        "tests/engine/test_local.py::test_recomputed_old_log_probs_start_at_ratio_one",
        "tests/model/test_backbone.py::test_padding_changes_neither_output_nor_gradient",
        "tests/test_footguns.py::test_there_is_no_dropout_to_set",
    ),
    "12 samples cut by top-p and scored without": (
        "tests/test_footguns.py::test_truncated_sampling_cannot_be_asked_for",
        "tests/engine/test_sampler.py::test_log_probs_are_those_the_trainer_computes",
        "tests/engine/test_sampler.py::test_tokens_follow_the_softmax_of_the_tempered_logits",
    ),
    "13 adapters that round their updates away": (
        "tests/test_footguns.py::test_an_update_too_small_for_bfloat16_arrives",
        "tests/test_footguns.py::test_adapters_are_never_merged",
        "tests/model/test_adapters.py::test_bfloat16_activations_are_updated_in_float32",
    ),
    "14 seeds": (
        "tests/test_footguns.py::test_no_global_generator_is_drawn_from",
        "tests/engine/test_local.py::test_evaluating_leaves_training_as_it_is",
        "tests/engine/test_local.py::test_a_seed_gives_every_objective_the_same_first_rollout",
        "tests/training/test_resume.py::test_a_run_killed_at_any_record_ends_as_if_it_had_not_been",
        "tests/engine/test_sampler.py::test_seed_step_prompt_and_sample_each_change_the_draw",
    ),
    "15 settings that are ignored, names that are overwritten, inputs that are changed": (
        "tests/config/test_sources.py::test_an_error_says_where_what_and_what_was_meant",
        "tests/objectives/test_registry.py::test_a_duplicate_raises_and_the_same_again_does_not",
        "tests/test_mutants.py::test_mutant_is_noticed",
        "objectives/conformance/losses.py::check_inputs_are_left_alone",
        "tests/advantages/test_shape.py::test_the_reward_itself_is_left_alone",
    ),
    "16 importance weights: of tokens or responses, sums or means, with or without a gradient": (
        "tests/objectives/test_ratio.py::test_sequence_ratio_is_the_geometric_mean",
        "tests/objectives/test_ratio.py::test_each_token_has_its_own_gradient_1",
        "tests/objectives/test_surrogate.py::test_clipped_weight_keeps_every_gradient",
        "tests/test_profiles_parts.py::test_response_ratio_is_the_product_and_sequence_ratio_its_root",
    ),
}


@cache
def names_in(path: str) -> set[str]:
    """Names of the tests of a file, those of classes as Class::test."""
    found: set[str] = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("footgun", FOOTGUNS)
def test_its_tests_exist(footgun: str) -> None:
    missing = [name for name in FOOTGUNS[footgun] if name.split("::", 1)[1] not in names_in(name.split("::", 1)[0])]
    assert missing == []


def test_the_list_is_whole() -> None:
    assert [int(name.split()[0]) for name in FOOTGUNS] == list(range(1, 17))
    assert all(len(tests) >= 2 for tests in FOOTGUNS.values())
    own = {name for name in names_in("tests/test_footguns.py") if name.startswith("test_")}
    listed = {name.split("::")[1] for tests in FOOTGUNS.values() for name in tests if "test_footguns.py" in name}
    assert own - listed == {"test_its_tests_exist", "test_the_list_is_whole"}


SURROGATES = ("linear", "clip", "soft_gate", "clipped_weight,surrogate.cap=1")


@pytest.mark.parametrize("ratio", ["token", "sequence", "response"])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_on_policy_everything_is_the_weighted_score(ratio: str, surrogate: str) -> None:
    """At ratio 1 every gradient is that of -sum(A log pi m) / N, CISPO with a cap of 1 included."""
    objective = get(f"dapo[ratio={ratio},surrogate={surrogate}]")
    w = zoo.world().on_policy()
    out, batch = zoo.step(objective, w)
    _, gradients = zoo.loss_and_gradients(objective, out, batch)
    logp_NT = zoo.leaf(w.logp_NT)
    (-(batch.advantage_BT * logp_NT * w.mask_NT).sum() / w.mask_NT.sum()).backward()
    torch.testing.assert_close(gradients["logp_BT"], logp_NT.grad, rtol=1e-12, atol=1e-15)


def test_gspo_with_a_clip_for_tokens_never_clips_and_the_metrics_say_so() -> None:
    w = zoo.world()
    shares = {}
    for name in ("gspo", "gspo[surrogate.low=0.2,surrogate.high=0.2]", "gspo[ratio=token]"):
        objective = get(name)
        shares[name] = update_metrics(objective, *zoo.step(objective, w))["clip_fraction"]
    assert shares["gspo"] > 0.1
    assert shares["gspo[surrogate.low=0.2,surrogate.high=0.2]"] == 0
    assert shares["gspo[ratio=token]"] > 0.1  # a clip of 4e-4 stops nearly every token


def test_a_sequence_ratio_with_another_aggregate_says_so_in_its_name() -> None:
    assert get("gspo").but(aggregate="token_mean").name == "gspo[aggregate=token_mean]"
    assert get("grpo").but(ratio="sequence").row()["aggregate"] == "sequence_mean"


def test_an_unset_cap_lets_ratio_one_through() -> None:
    assert ClippedWeight().floor < 1 < ClippedWeight().cap
    with pytest.raises(ValueError, match="no field 'high'"):
        get("grpo[surrogate=clipped_weight,surrogate.high=0.2]")


def test_punished_lengths_do_not_make_a_group_worth_keeping() -> None:
    """All wrong, of lengths 6, 2, 4, 7 of 7: the shaped rewards differ, the accuracies do not."""
    dapo, w = get("dapo"), zoo.world()
    wrong = w.rows(w.group_N == 1)
    assert zoo.credit(dapo, wrong).advantage_NT.abs().max() > 0.5
    assert dapo.select(w.accuracy_PG).tolist() == [True, False, False, True]


def test_an_all_right_batch_is_silent_where_its_spread_is_not_divided_by() -> None:
    """Eight right answers and a critic, or a length penalty, that is off by a thousandth.

    Whitening and the group's std make that |A| of order 1, whatever its size; without them it stays a thousandth.
    """
    mask_NT = torch.ones(8, 1, dtype=torch.bool)
    noise_NT = 1e-3 * torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]
    group_N, one_NT = torch.zeros(8), torch.ones(8, 1, dtype=torch.float64)

    def largest(reward_NT: torch.Tensor, estimator: GAE | Group, value_NT: torch.Tensor | None = None) -> float:
        return estimator(reward_NT, mask_NT, group_N, value_NT).advantage_NT.abs().max().item()

    assert largest(one_NT, GAE(whiten=True), one_NT + noise_NT) > 1
    assert largest(one_NT, GAE(whiten=False), one_NT + noise_NT) == pytest.approx(1e-3)
    assert largest(one_NT + noise_NT, Group(scale="std")) > 1
    assert largest(one_NT + noise_NT, Group(scale="none")) == pytest.approx(1e-3)
    assert largest(one_NT, GAE(whiten=True), one_NT) == largest(one_NT, Group(scale="std")) == 0


def test_there_is_no_dropout_to_set() -> None:
    assert "dropout" not in " ".join(LoraSettings.model_fields)
    with pytest.raises(ValueError, match="dropout"):
        LoraSettings.model_validate({"dropout": 0.1})


@pytest.mark.parametrize("name", ["top_p", "top_k", "min_p", "repetition_penalty"])
def test_truncated_sampling_cannot_be_asked_for(name: str) -> None:
    with pytest.raises((ValueError, UserError), match=name):
        RunConfig.model_validate({"objective": "grpo", "train": {name: 0.9}})


def test_an_update_too_small_for_bfloat16_arrives() -> None:
    """A fresh LoRA A over 896 inputs, moved by lr 1e-6: all moves in float32, hardly any would in bfloat16."""
    layout = AdapterLayout((AdaptedLayer("layer", 896, 8),), r=4, scaling=1.0, hidden_size=8)
    theta = init_adapter(layout, seed=0)
    a = theta[theta != 0]
    assert a.dtype == torch.float32 and a.numel() == 4 * 896
    optimizer_steps = torch.full_like(a, 1e-6)
    assert (a - optimizer_steps != a).all()
    assert (a.bfloat16() - optimizer_steps.bfloat16() != a.bfloat16()).float().mean() < 0.02


def calls() -> list[tuple[str, ast.Call]]:
    """Every call of a method or function of a module, with its place."""
    return [
        (f"{path.relative_to(ROOT)}:{node.lineno}", node)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]


def test_adapters_are_never_merged() -> None:
    merges = ("merge_adapter", "merge_and_unload", "unmerge_adapter", "merge", "unmerge")
    assert [place for place, call in calls() if call.func.attr in merges] == []  # type: ignore[union-attr]


def test_no_global_generator_is_drawn_from() -> None:
    """torch's draws take a generator; the one seed that is set is the model builder's, inside `fork_rng`."""
    draws = ("rand", "randn", "randint", "randperm", "multinomial", "bernoulli", "normal", "manual_seed")
    unseeded = [
        place.partition(":")[0]
        for place, call in calls()
        if call.func.attr in draws  # type: ignore[union-attr]
        and not any(keyword.arg == "generator" for keyword in call.keywords)
        and ast.unparse(call.func) in {f"torch.{name}" for name in draws}
    ]
    assert set(unseeded) == {"rlzoo/warmstart/train.py"}
    modules = ("random.", "np.random.", "numpy.random.")
    own = {"random.Random", "np.random.default_rng", "np.random.Generator", "numpy.random.default_rng"}
    named = [(place, ast.unparse(call.func)) for place, call in calls()]
    assert [place for place, name in named if name.startswith(modules) and name not in own] == []
