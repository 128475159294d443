"""Search with Keras Tuner's Hyperband, and log each training with MLflow autologging."""

from typing import Any

import common
import keras_tuner
import mlflow

given = common.arguments()
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.set_experiment("race")
mlflow.tensorflow.autolog()


class HyperModel(keras_tuner.HyperModel):  # type: ignore[misc]
    trainings = 0

    def build(self, hp: Any) -> Any:
        layers = hp.Int("layers", 1, 4)
        filters = hp.Choice("filters", [16, 32, 64])
        size = hp.Choice("image_size", [64, 96])
        dropout = hp.Float("dropout", 0.0, 0.5)
        rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
        return common.build(layers, filters, size, dropout, rate)

    def fit(self, hp: Any, model: Any, callbacks: Any, **options: Any) -> Any:
        training, validation = common.datasets(given.pictures, hp.get("image_size"))
        record = common.Record(given.events, str(self.trainings))
        self.trainings += 1
        with mlflow.start_run():
            mlflow.log_params(hp.values)
            return model.fit(training, validation_data=validation, callbacks=[*callbacks, record], **options)


tuner = keras_tuner.Hyperband(
    HyperModel(),
    objective=keras_tuner.Objective("val_auc", "max"),
    max_epochs=common.EPOCHS,
    hyperband_iterations=100,
    seed=given.seed,
    directory="tuner",
    project_name="race",
)
tuner.search(verbose=0)
