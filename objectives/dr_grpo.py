"""Dr. GRPO: GRPO done right, without its two divisions.

    L = -1/G sum_i 1/M sum_t min(r_it A_i, clip(r_it, 1-e, 1+e) A_i),   A_i = r_i - mean,   M a constant

Source: Liu et al., "Understanding R1-Zero-Like Training", 2503.20783. It removes the divisions by |y_i| and by the std;
M is MAX_TOKENS in its code, the longest response allowed.

Constants: e 0.2, no KL (its table 6; G 8, 3000 tokens). M 32, the default of `train.max_new_tokens` (our choice). M
only scales the gradient, and Adam cancels the scale; `aggregate.budget=N` sets it to your longest response.
Deviations: none. M is a fixed number, never the padded width of a batch as it once was in verl.
When it is inert: at one update per rollout the clip never acts. If all lengths are equal, the division by |y_i| is a
constant, and only the std differs from GRPO.
Disputed: the size of the bias that it removes. Dividing by the std weighs prompts by difficulty, by up to sqrt(G-1),
and not at all at G = 2. With the response itself in the mean, the expected gradient is (G-1)/G of the true one.
"""

from advantages import Group
from objectives.objective import Objective
from objectives.parts import Clip, Constant, Token
from objectives.registry import register

DR_GRPO = register(
    Objective(
        name="dr_grpo",
        advantage=Group(scale="none"),
        ratio=Token(),
        surrogate=Clip(low=0.2, high=0.2),
        aggregate=Constant(budget=32),
    ),
    page=__doc__,
    family="group-relative",
    parent="grpo",
)
