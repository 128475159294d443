"""Who proposes candidates.

protocol             what every engine does: ask, report, tell; and which engine an experiment names
retrying             an engine whose storage may go away for a while
optuna_engine        Optuna through ask and tell; samplers makes its samplers and pruners, optuna_storage opens its studies
keras_tuner_engine   Keras Tuner's oracles; keras_tuner_space a space as they see it, journal what is kept of a study
"""
