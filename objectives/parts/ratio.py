"""Ratios: how far the policy has moved from the one that sampled, as a log-ratio per token.

none      log pi - sg(log pi)                       value 0, gradient grad log pi: plain policy gradient
token     log pi_t - log old_t                      PPO, GRPO, DAPO
sequence  log pi_t - sg(log pi_t) + sg(mean_t (log pi - log old))     GSPO, 2507.18071
response  log pi_t - sg(log pi_t) + sg(sum_t (log pi - log old))      RLOO, 2402.14740
prefix    log pi_t - sg(log pi_t) + sg(sum_{s <= t} (log pi - log old))   CTPO, 2605.07331
"""

from __future__ import annotations

import torch
from torch import Tensor

from advantages import Part


class Ratio(Part):
    """Family: (logp_BT, old_logp_BT, mask_BT) -> log_ratio_BT, 0 outside the mask."""

    def __call__(self, logp_BT: Tensor, old_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define __call__")


class NoRatio(Ratio, kind="none"):
    """The ratio pi / pi.detach: 1 in value, and it keeps the gradient in the graph."""

    def __call__(self, logp_BT: Tensor, old_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
        return torch.where(mask_BT, logp_BT - logp_BT.detach(), 0)


class Token(Ratio, kind="token"):
    """One ratio per token (1707.06347, section 3)."""

    def __call__(self, logp_BT: Tensor, old_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
        return torch.where(mask_BT, logp_BT - old_logp_BT, 0)


class Sequence(Ratio, kind="sequence"):
    """One length-normalized ratio per response, s_i = (pi(y) / old(y))^(1/|y|) (2507.18071).

    The value is s_i at every token and the gradient is s_i grad log pi_t, token by token (GSPO-token, same paper): for
    an advantage that is constant in the response, its mean over tokens has exactly GSPO's gradient. The form is also
    defined for an advantage that varies.
    """

    def __call__(self, logp_BT: Tensor, old_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
        token_BT = torch.where(mask_BT, logp_BT - old_logp_BT, 0)
        length_B1 = mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
        mean_B1 = token_BT.detach().sum(dim=1, keepdim=True) / length_B1
        return torch.where(mask_BT, token_BT - token_BT.detach() + mean_B1, 0)


class Response(Ratio, kind="response"):
    """The ratio of whole responses, pi(y) / old(y), at every token: a response is one action (RLOO, 2402.14740).

    With `sequence_sum` and an advantage that is constant in the response it has exactly the gradient of
    (pi(y) / old(y)) A / B. It grows with length: clips meant for tokens act on almost every long response.
    """

    def __call__(self, logp_BT: Tensor, old_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
        token_BT = torch.where(mask_BT, logp_BT - old_logp_BT, 0)
        sum_B1 = token_BT.detach().sum(dim=1, keepdim=True)
        return torch.where(mask_BT, token_BT - token_BT.detach() + sum_B1, 0)


class Prefix(Ratio, kind="prefix"):
    """The ratio of everything up to the token, prod_{s <= t} pi_s / old_s: the importance weight of the token's
    gradient, without the variance of what comes after it (CTPO, 2605.07331). The gradient is the token's own."""

    def __call__(self, logp_BT: Tensor, old_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
        token_BT = torch.where(mask_BT, logp_BT - old_logp_BT, 0)
        return torch.where(mask_BT, token_BT - token_BT.detach() + token_BT.detach().cumsum(dim=1), 0)
