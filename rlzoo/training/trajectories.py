"""A rollout: the trajectories of one step, their rewards, and which of their tokens are learned from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from advantages import at_last_token
from rlzoo.engine.tokens import Tokens, cat_padded
from rlzoo.errors import UserError
from rlzoo.tasks import Problem


@dataclass(frozen=True)
class Rollout:
    """Responses to P prompts, G each; row i answers prompt i // G.

    Attributes:
        problems: the P problems.
        tokens: the N = P * G rows; each continues the prompt of its problem.
        logp_NT: log-probs under the sampling policy.
        finished_N: bool, true where the response ended with an end token.
        reward_N: the task's reward, nan where it could not be scored.
        accuracy_N: the task's verdict, 0 or 1, before any shaping; known for every response.
        completions: the N responses as text.
        greedy_N: reward of the greedy response to each row's prompt, nan where it has none; None unless needed.
        named_NK: the rewards whose sum is reward_N, where there are several; None for one.
        names: their names.
        turn_reward_NT: rewards of several turns, each on the last learned token of its turn; None for a single turn.
    """

    problems: list[Problem]
    group_size: int
    tokens: Tokens
    logp_NT: Tensor
    finished_N: Tensor
    reward_N: Tensor
    accuracy_N: Tensor
    completions: list[str]
    greedy_N: Tensor | None = None
    named_NK: Tensor | None = None
    names: tuple[str, ...] = ("reward",)
    turn_reward_NT: Tensor | None = None

    @property
    def reward_NT(self) -> Tensor:
        """Reward of each token: that of a turn on the turn's last learned token; 0 where it could not be scored."""
        if self.turn_reward_NT is not None:
            return self.turn_reward_NT.where(self.mask_NT, 0.0)
        return at_last_token(self.reward_N.nan_to_num(0.0), self.mask_NT)

    @property
    def reward_NK(self) -> Tensor:
        """The rewards by name, one column each; nan where one could not be scored."""
        return self.reward_N[:, None] if self.named_NK is None else self.named_NK

    @property
    def prompt_N(self) -> tuple[str, ...]:
        """A name for each row's prompt, the same in every step: the first digits of its text's SHA-256."""
        texts = (json.dumps(problem.prompt, sort_keys=True) for problem in self.problems)
        keys = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
        return tuple(key for key in keys for _ in range(self.group_size))

    @property
    def turn_NT(self) -> Tensor:
        """Turn in which each token was written, from 0: a turn begins with the policy's first token."""
        learn_NT = self.tokens.learn_NT
        begins_NT = learn_NT & ~torch.nn.functional.pad(learn_NT, (1, 0))[:, :-1]
        return (begins_NT.cumsum(dim=1) - 1).clamp(min=0)

    @property
    def group_N(self) -> Tensor:
        """Id of each row's prompt: 0 .. P-1, G times each."""
        return torch.arange(len(self.problems), device=self.reward_N.device).repeat_interleave(self.group_size)

    @property
    def mask_NT(self) -> Tensor:
        """Tokens that may be learned from: none in a response without a reward."""
        return self.tokens.learn_NT & self.reward_N.isfinite()[:, None]

    @property
    def usable_accuracy_PG(self) -> Tensor:
        """Input of prompt selection: the accuracy of the responses that may be learned from, nan for the others."""
        return self.accuracy_N.where(self.reward_N.isfinite(), torch.nan).view(-1, self.group_size)

    def keep(self, keep_P: Tensor) -> Rollout:
        """The rollout of the prompts that are true in keep_P."""
        prompts = keep_P.nonzero().flatten().tolist()
        rows = keep_P.repeat_interleave(self.group_size).nonzero().flatten()
        return Rollout(
            [self.problems[p] for p in prompts],
            self.group_size,
            self.tokens.rows(rows, trim=False),
            *(x[rows] for x in (self.logp_NT, self.finished_N, self.reward_N, self.accuracy_N)),
            [self.completions[i] for i in rows.tolist()],
            None if self.greedy_N is None else self.greedy_N[rows],
            None if self.named_NK is None else self.named_NK[rows],
            self.names,
            None if self.turn_reward_NT is None else self.turn_reward_NT[rows],
        )

    @classmethod
    def cat(cls, parts: Sequence[Rollout]) -> Rollout:
        """Put rollouts one after the other.

        Raises:
            UserError: the reward function gave other names in one than in another.
        """
        if len({part.names for part in parts}) > 1:
            raise UserError(
                f"the reward function returned {', '.join(parts[0].names)} at first and "
                f"{', '.join(parts[-1].names)} later: it has to return the same names every time"
            )
        return cls(
            [problem for part in parts for problem in part.problems],
            parts[0].group_size,
            Tokens.cat([part.tokens for part in parts]),
            cat_padded([part.logp_NT for part in parts]),
            *(torch.cat([getattr(part, name) for part in parts]) for name in ("finished_N", "reward_N", "accuracy_N")),
            [text for part in parts for text in part.completions],
            None if parts[0].greedy_N is None else torch.cat([part.greedy_N for part in parts]),
            None if parts[0].named_NK is None else torch.cat([part.reward_NK for part in parts]),
            parts[0].names,
            None if parts[0].turn_reward_NT is None else cat_padded([part.turn_reward_NT for part in parts]),
        )
