"""Experiments of many runs: compare, ablate, tune, evaluate, reproduce. Configurations in, numbers and verdicts out.

Read `compare` first: the plan is written, the runs train together, their table and verdicts are made. `tasks` runs a
comparison on several tasks and judges their mean. `ablation_plan` lays out an ablation's rows and contrasts, `ablate`
runs them, `contrasts` judges them. `tune` searches a setting for every row before a comparison. `plan` keeps the plan
in the folder, with its changes and looks. `evaluate` scores trained runs again, `reproduce` runs published rows,
`power` plans more seeds or problems, `explain` and `doctor` look at settings and at run folders without training.

Not here: the training of a run (`rlzoo.training`), the arithmetic of verdicts (`rlzoo.stats`), pages and curves
(`rlzoo.report`), and who calls what with which defaults (`rlzoo.api`, `rlzoo.cli`).
"""
