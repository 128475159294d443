"""Who proposes candidates.

protocol        what every engine does: ask, report, tell; and which engine an experiment names
optuna_engine   Optuna's samplers and pruners
"""
