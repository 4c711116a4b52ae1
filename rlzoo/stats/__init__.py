"""Statistics of comparisons: intervals, tests, verdicts, and the sentences that state them. Numbers in, words out.

Read `crossed` first: the error of a mean over seeds and problems, on which every verdict rests. `estimates` applies it
to rows of scores, `judge` makes the verdicts, `preconditions` refuses them, `spending` pays for several looks, `power`
says what would settle a pair. `comparisons` judges a comparison on one task by its plan, `over_tasks` one over several;
`aggregates` has the interquartile mean and the profiles that readers of reinforcement learning expect. `scores` turns
the records of runs into numbers, `symptoms` finds what is wrong with a training run.

Not here: the plan itself (`rlzoo.config.plan`), running and reading comparisons (`rlzoo.experiments`), and tables,
charts and pages (`rlzoo.report`). Nothing here reads a file or knows a model.
"""
