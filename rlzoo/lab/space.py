"""Enumeration of all responses over a small vocabulary with an end token, of at most `longest` tokens.

    S = sum_{k < longest} (V-1)^k  states          R = S + (V-1)^longest  responses

A response ends with the end token, which is one of the V tokens, or is cut at `longest` tokens. A state is the prefix
before a token.

Shape letters of the laboratory: R responses, S states, V vocabulary, T response tokens, M parameters.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from rlzoo.errors import UserError

MAX_RESPONSES = 5000
"""Limit on enumerated responses: beyond it, exact sums take minutes."""


@dataclass(frozen=True)
class Space:
    """The enumerated responses. The end token is the last of the vocabulary, `vocabulary - 1`.

    Attributes:
        token_RT, state_RT: each token and the state in which it was chosen; 0 outside the mask.
        mask_RT: bool, true at the tokens of the response, including the end token.
        length_R: number of tokens of each response.
        finished_R: bool, true if the response ends with the end token.
        prefix_ST: tokens of each state, -1 beyond its depth. State 0 is the empty prefix. A prefix precedes its
            extensions, so descending state order is backwards in time.
        next_SV: state after choosing a token, -1 if the response ends.
        response_SV: the response that ends with this choice, -1 if it continues.
    """

    vocabulary: int
    longest: int
    token_RT: Tensor
    state_RT: Tensor
    mask_RT: Tensor
    length_R: Tensor
    finished_R: Tensor
    prefix_ST: Tensor
    next_SV: Tensor
    response_SV: Tensor

    @property
    def depth_S(self) -> Tensor:
        """Number of tokens before each state."""
        return (self.prefix_ST >= 0).sum(dim=1)

    def logp_RT(self, logp_SV: Tensor) -> Tensor:
        """Return the log-probs of all responses' tokens, given those of all states and tokens; 0 outside the mask."""
        return torch.where(self.mask_RT, logp_SV[self.state_RT, self.token_RT], 0)

    def at_states(self, x_S: Tensor) -> Tensor:
        """Return the number of each token's state, [R, T]; 0 outside the mask."""
        return torch.where(self.mask_RT, x_S[self.state_RT], 0)


def enumerate_responses(vocabulary: int = 3, longest: int = 4) -> Space:
    """Enumerate every response of at most `longest` tokens over `vocabulary` tokens, which include the end token.

    Raises:
        UserError: fewer than 2 tokens, a length below 1, or more than `MAX_RESPONSES` responses.
    """
    if vocabulary < 2 or longest < 1:
        raise UserError(
            f"vocabulary {vocabulary}, longest {longest}: at least 2 tokens (one of them ends) and length 1 are needed"
        )
    states = sum((vocabulary - 1) ** k for k in range(longest))
    if states + (vocabulary - 1) ** longest > MAX_RESPONSES:
        raise UserError(
            f"{states + (vocabulary - 1) ** longest} responses of at most {longest} of {vocabulary} tokens: the "
            f"laboratory enumerates at most {MAX_RESPONSES}: use fewer tokens or a smaller length"
        )
    end = vocabulary - 1
    prefixes = [p for n in range(longest) for p in itertools.product(range(end), repeat=n)]
    place = {prefix: s for s, prefix in enumerate(prefixes)}
    responses = [(*p, end) for p in prefixes] + list(itertools.product(range(end), repeat=longest))
    token_RT, state_RT = torch.zeros(2, len(responses), longest, dtype=torch.long)
    mask_RT = torch.zeros(len(responses), longest, dtype=torch.bool)
    prefix_ST = torch.full((len(prefixes), longest), -1)
    next_SV, response_SV = torch.full((2, len(prefixes), vocabulary), -1)
    for prefix, s in place.items():
        prefix_ST[s, : len(prefix)] = torch.tensor(prefix, dtype=torch.long)
        for v in range(end):
            next_SV[s, v] = place.get((*prefix, v), -1)
    for r, response in enumerate(responses):
        for t, token in enumerate(response):
            token_RT[r, t], state_RT[r, t], mask_RT[r, t] = token, place[response[:t]], True
        response_SV[place[response[:-1]], response[-1]] = r
    finished_R = torch.tensor([response[-1] == end for response in responses])
    return Space(
        vocabulary=vocabulary,
        longest=longest,
        token_RT=token_RT,
        state_RT=state_RT,
        mask_RT=mask_RT,
        length_R=mask_RT.sum(dim=1),
        finished_R=finished_R,
        prefix_ST=prefix_ST,
        next_SV=next_SV,
        response_SV=response_SV,
    )
