"""The engines, which propose the candidates of a study.

protocol             the interface of an engine
engine_table         the table of engines: opens, reads and describes the studies of the engine that an experiment names
retrying             an engine that waits while its storage is unreachable
storage_url          database URLs, and errors that name them without their passwords
untried              the candidates of a study that are left to train
stored               a study as its engine has stored it
study_lock           the lock that lets one search at a time work on a study
optuna_engine        Optuna's samplers and pruners; `samplers` builds them, `optuna_storage` opens and reads the studies
keras_tuner_engine   Keras Tuner's oracles; `keras_tuner_oracles` builds them, `keras_tuner_space` translates the space,
                     `keras_tuner_storage` opens and reads the studies, `journal` is the file that holds a study
"""
