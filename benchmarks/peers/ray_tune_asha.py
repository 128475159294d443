"""Search with Ray Tune's ASHA and its MLflow callback, as in Ray's guides for Keras and for MLflow."""

from pathlib import Path
from typing import Any

import common
import mlflow
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.integration.keras import TuneReportCheckpointCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import BasicVariantGenerator

given = common.arguments()
given.events = given.events.absolute()


def train(config: dict[str, Any]) -> None:
    training, validation = common.datasets(given.pictures, config["image_size"])
    model = common.build(
        config["layers"], config["filters"], config["image_size"], config["dropout"], config["learning_rate"]
    )
    record = common.Record(given.events, tune.get_context().get_trial_id())
    report = TuneReportCheckpointCallback(metrics={"val_auc": "val_auc"})
    model.fit(training, validation_data=validation, epochs=common.EPOCHS, callbacks=[record, report], verbose=0)


if __name__ == "__main__":
    space = {
        "layers": tune.randint(1, 5),
        "filters": tune.choice([16, 32, 64]),
        "image_size": tune.choice([64, 96]),
        "dropout": tune.uniform(0, 0.5),
        "learning_rate": tune.loguniform(1e-4, 1e-2),
    }
    store = MLflowLoggerCallback(tracking_uri="sqlite:///mlflow.db", experiment_name="race")
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="val_auc",
            mode="max",
            num_samples=1000,
            search_alg=BasicVariantGenerator(random_state=given.seed),
            scheduler=ASHAScheduler(max_t=common.EPOCHS),
        ),
        run_config=tune.RunConfig(storage_path=str(Path("results").absolute()), callbacks=[store]),
    )
    tuner.fit()
