"""Names of everything that pneumo writes into MLflow.

They are a contract with everyone who reads the runs (README, "What a study leaves in MLflow"): a name is never changed.
"""

from __future__ import annotations


class Tags:
    """Tags of runs, of registered models and of their versions."""

    # Every run of a study.
    ROLE = "pneumo.role"  # study, trial, confirm or promotion
    STUDY = "pneumo.study"
    ENGINE = "pneumo.engine"
    ALGORITHM = "pneumo.algorithm"
    VERSION = "pneumo.version"  # of pneumo
    KEY = "pneumo.key"  # the run's name in the outbox before it had an id

    # The study's run.
    STUDY_ID = "pneumo.id"  # the random id that the engine stores too
    PRUNER = "pneumo.pruner"
    AUDIT = "pneumo.audit"  # counts of findings
    ALLOW_LEAKS = "pneumo.allow_leaks"  # the reason given in data.allow_leaks
    DATA = "pneumo.data"  # kind of pictures; on a registered model too
    DATA_TEST = "pneumo.data.test"  # digest of the test pictures; on promotions and versions too
    DATA_PATIENTS = "pneumo.data.patients"  # how the patients are known
    BEST_RUN = "pneumo.best_run"
    ENDED = "pneumo.ended"  # why the last search ended
    SEARCH_STARTED = "pneumo.search_started"  # when the last search began to train, in seconds since 1970
    TEST_OPENING = "pneumo.test_opening."  # followed by a number: one opening of the test pictures, JSON

    # The run of a trial or a confirmation.
    TRIAL = "pneumo.trial"  # number of the trial; on promotions and versions too
    STATE = "pneumo.state"  # complete, pruned or failed
    ERROR = "pneumo.error"
    DEVICE = "pneumo.device"
    PRECISION = "pneumo.precision"
    STRESS = "pneumo.stress"  # version of the stress suite
    STRESS_WORST = "pneumo.stress.worst"  # the change with the lowest AUC
    PLOTS = "pneumo.plots"  # names of the plots that the run has, `calibration, roc`
    GRADCAM = "pneumo.gradcam"  # why there is no Grad-CAM heat map
    CODE = "pneumo.code"
    LIBRARIES = "pneumo.libraries"
    THREADS = "pneumo.threads"
    RESUMED_FROM = "pneumo.resumed_from"  # number of the trial that this one continues
    CONTINUED = "pneumo.continued"  # the trial resumed from its own checkpoint
    RESTARTED = "pneumo.restarted"  # why a checkpoint could not be used
    MODEL_REMOVED = "pneumo.model_removed"  # why the run has no model

    # The run of a promotion, or the version that it registered.
    PROMOTION_KEY = "pneumo.promotion_key"  # hash of everything that the promotion is decided by
    JUDGED = "pneumo.judged"  # everything that the test pictures show is recorded
    RUN = "pneumo.run"  # the promoted trial's run; of an ensemble its best member's
    MEMBERS = "pneumo.members"  # of an ensemble: the run and the weight of each member, `RUN WEIGHT, RUN WEIGHT`
    MODEL = "pneumo.model"
    MODEL_ID = "pneumo.model_id"
    MODEL_VERSION = "pneumo.model_version"
    PROMOTION = "pneumo.promotion"  # the promotion's run
    CLASSES = "pneumo.classes"
    DECISION = "pneumo.decision"  # hash of the network with its operating point
    THRESHOLD = "pneumo.threshold"
    TEMPERATURE = "pneumo.temperature"
    THRESHOLD_ON = (
        "pneumo.threshold_on"  # the validation pictures that both were chosen on: stress, validation or fixed
    )
    AGAINST = "pneumo.against"  # the reference
    GATE = "pneumo.gate"  # passed, refused or forced
    GATE_SAID = "pneumo.gate.said"  # every check of the gate
    FORCED = "pneumo.forced"  # the reason given with --force
    TEST_OPENINGS = "pneumo.test_openings"  # number of openings of the test pictures

    # A registered model.
    MOVING = "pneumo.moving"  # aliases that are about to move, JSON

    # Tags that MLflow defines.
    PARENT = "mlflow.parentRunId"
    USER = "mlflow.user"
    SOURCE_NAME = "mlflow.source.name"
    SOURCE_TYPE = "mlflow.source.type"
    NOTE = "mlflow.note.content"  # Markdown at the top of a run's page
    DATASET_CONTEXT = "mlflow.data.context"  # the part of the split that a dataset is

    @staticmethod
    def data(part: str) -> str:
        """Return the tag of the digest of one part of the split."""
        return f"pneumo.data.{part}"


class Params:
    """Parameters of runs, besides the hyperparameters, which go by their own names."""

    SEED = "seed"

    # The run of a promotion.
    ALIAS = "alias"
    ENSEMBLE = "ensemble"
    THRESHOLD_RULE = "threshold_rule"
    THRESHOLD = "threshold"
    THRESHOLD_ON = "threshold_on"  # stress, validation or fixed
    CALIBRATION = "calibration"
    TEMPERATURE = "temperature"
    GATE = "gate"
    FLOORS = "floors"


class Metrics:
    """Metrics of runs."""

    # A trial, after each epoch.
    LOSS = "loss"
    ACCURACY = "accuracy"
    AUC = "auc"
    VAL_LOSS = "val_loss"
    VAL_ACCURACY = "val_accuracy"
    VAL_AUC = "val_auc"
    EPOCH_SECONDS = "epoch_seconds"
    # The stress objective that chooses the best epoch, if there is one, on a part of the pictures.
    EPOCH_STRESS_AUC = "epoch_val_stress_auc"
    EPOCH_STRESS_ACCURACY = "epoch_val_stress_accuracy"
    EPOCH_STRESS_WORST = "epoch_val_stress_worst"
    OF_STRESS_EPOCH = (EPOCH_STRESS_AUC, EPOCH_STRESS_ACCURACY, EPOCH_STRESS_WORST)
    OF_EPOCH = (LOSS, ACCURACY, AUC, VAL_LOSS, VAL_ACCURACY, VAL_AUC, EPOCH_SECONDS, *OF_STRESS_EPOCH)

    # A trial, once. The best epoch's val_loss, val_accuracy and val_auc are `spec.objective.objective_metric`.
    BEST_EPOCH = "best_epoch"
    THRESHOLD = "threshold"
    VAL_ACCURACY_AT_THRESHOLD = "val_accuracy_at_threshold"  # val_accuracy is at 0.5, as in Keras
    VAL_SENSITIVITY = "val_sensitivity"
    VAL_SPECIFICITY = "val_specificity"
    VAL_F1 = "val_f1"
    VAL_ATTENTION_INSIDE = "val_attention_inside"  # share of Grad-CAM heat in the middle of the picture
    VAL_STRESS_AUC = "val_stress_auc"  # mean over the geometric changes
    VAL_STRESS_ACCURACY = "val_stress_accuracy"  # of all changes, at `STRESS_THRESHOLD`
    VAL_STRESS_WORST = "val_stress_worst"  # lowest AUC of a change
    VAL_PHOTOMETRY_AUC = "val_photometry_auc"  # mean over the photometric changes
    VAL_FRAME_AUC = "val_frame_auc"  # of the frame exchange
    STRESS_THRESHOLD = "stress_threshold"
    PARAMETERS = "parameters"
    MODEL_BYTES = "model_bytes"
    PREDICT_MS = "predict_ms"
    EPOCHS_TRAINED = "epochs_trained"
    TRAIN_SECONDS = "train_seconds"
    IMAGES_PER_SECOND = "images_per_second"

    SYSTEM = "system/"  # followed by the name that MLflow gives a measurement of the machine

    # A study.
    BEST_TRIAL = "best_trial"
    BEST_VALUE = "best_value"
    PICTURES_UNREADABLE = "pictures_unreadable"
    TEST_OPENINGS = "test_openings"

    # A promotion.
    TEST_PICTURES = "test_pictures"
    TEST_PATIENTS = "test_patients"
    TEST_UNREADABLE = "test_unreadable"
    GATE_AUC_DIFFERENCE = "gate_auc_difference"
    GATE_MCNEMAR_P = "gate_mcnemar_p"
    GAIN_AUC = "ensemble_gain_auc"  # of an ensemble over its best member on the test pictures
    GAIN_ACCURACY = "ensemble_gain_accuracy"
    POINT_ACCURACY = "operating_point_accuracy"  # on plain validation pictures
    POINT_STRESS_ACCURACY = "operating_point_stress_accuracy"  # on stressed validation pictures
    OTHER_POINT_THRESHOLD = (
        "other_point_threshold"  # chosen on the other validation pictures, see `Params.THRESHOLD_ON`
    )
    OTHER_POINT_ACCURACY = "other_point_accuracy"
    OTHER_POINT_STRESS_ACCURACY = "other_point_stress_accuracy"

    TEST = "test_"
    """Prefix of the figures on the test pictures, as metrics of a promotion and as tags of a version."""

    @staticmethod
    def trials(state: str) -> str:
        """Return the metric of a study that counts its trials of a state."""
        return f"trials_{state}"

    @staticmethod
    def skipped(reason: str) -> str:
        """Return the metric of a study that counts the proposals that were not trained for a reason, see `SkipReason`."""
        return f"proposals_{reason}"

    @staticmethod
    def confirmed(end: str) -> str:
        """Return the metric of a study for the best confirmed trial's `mean`, or the `low` or `high` end of its interval."""
        return f"confirmed_{end}"


class Artifacts:
    """Artifacts of runs: paths within the run."""

    EXPERIMENT = "experiment.yaml"

    # A trial.
    HISTORY = "history.csv"
    PREDICTIONS = "predictions.csv"  # of a promotion too
    STRESS = "stress.csv"  # the figures of each change of the stress suite
    STRESS_PREDICTIONS = "stress_predictions.npz"  # probabilities under each change
    CAUSES = "causes.csv"  # error rates by the cause of the pneumonia
    ERROR = "error.txt"  # stack trace of a failed trial
    OUTPUT = "output.txt"  # what a worker printed

    # A study.
    AUDIT = "audit.json"
    REPORT = "report.html"  # an earlier version wrote study.html
    TRIALS = "trials.csv"
    PARETO = "pareto.csv"
    CONFIRM = "confirm.csv"

    # A promotion.
    GATE = "gate.json"
    CARD = "card.md"

    @staticmethod
    def plot(file: str) -> str:
        """Return the path of a plot."""
        return f"plots/{file}"


class Variables:
    """Environment variables of a worker process, which nobody else sets."""

    GPU_MEMORY = "PNEUMO_GPU_MEMORY"  # MiB of its GPU that TensorFlow may allocate, or `all`; not set on the CPU
    GPU_PICTURES = "PNEUMO_GPU_PICTURES"  # bytes of its GPU's memory that pictures may take; not set on the CPU
