"""Search with Optuna and MLflow autologging, one nested run per trial, as in MLflow's hyperparameter tuning guide."""

import common
import mlflow
import optuna

given = common.arguments()
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.set_experiment("race")
mlflow.tensorflow.autolog()


def objective(trial: optuna.Trial) -> float:
    with mlflow.start_run(nested=True, run_name=f"trial-{trial.number}"):
        layers = trial.suggest_int("layers", 1, 4)
        filters = trial.suggest_categorical("filters", [16, 32, 64])
        size = trial.suggest_categorical("image_size", [64, 96])
        dropout = trial.suggest_float("dropout", 0.0, 0.5)
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
        mlflow.log_params(trial.params)
        training, validation = common.datasets(given.pictures, size)
        model = common.build(layers, filters, size, dropout, rate)
        record = common.Record(given.events, str(trial.number))
        history = model.fit(training, validation_data=validation, epochs=common.EPOCHS, callbacks=[record], verbose=0)
        best = max(history.history["val_auc"])
        mlflow.log_metric("best_val_auc", best)
        return float(best)


with mlflow.start_run(run_name="study"):
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=given.seed))
    study.optimize(objective, n_trials=1000)
