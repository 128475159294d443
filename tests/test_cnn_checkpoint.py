"""A training that goes on from a checkpoint comes to what an unbroken one does, or begins anew."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from mlflow.entities import Run

from pneumo.cnn.build import build, compile_model
from pneumo.cnn.checkpoint import Best, Checkpoint, CheckpointError, load, save
from pneumo.cnn.device import release
from pneumo.cnn.fit import Fitted, Verdict, fit, steps_per_epoch
from pneumo.data.prepare import prepare
from pneumo.data.sources import open_source
from pneumo.spec.candidate import Candidate
from pneumo.spec.experiment import DataSpec, PhantomSpec
from pneumo.spec.hyperparameters import Hyperparameters, Value
from pneumo.spec.objective import objective_metric
from pneumo.spec.result import TrialResult
from pneumo.tracking.outbox import open_outbox
from pneumo.tracking.store import connect
from pneumo.tracking.trial import TrialLog
from pneumo.trial import TrialTask, run
from tests.outboxes import send
from tests.test_cnn_fit import TINY, TRAINING, VALIDATION, equal

FULL = 4
"""Epochs of the whole training."""

NAN = float("nan")

RECIPE: Mapping[str, object] = {"learning_rate": 0.001, "seed": 3}


def built(values: Mapping[str, Any], epochs: int = FULL) -> tuple[keras.Model, Hyperparameters]:
    asked = Hyperparameters(**{**TINY, **values, "epochs": epochs})
    model = build(asked, seed=3)
    compile_model(model, asked, steps_per_epoch(TRAINING, asked) * FULL)
    return model, asked


def state(model: keras.Model) -> list[npt.NDArray[Any]]:
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


@dataclass
class Part:
    """What one call of `fit` left: the last epoch's variables, the best's weights, the checkpoint's part of it."""

    fitted: Fitted
    last: list[npt.NDArray[Any]]
    best: list[npt.NDArray[Any]]
    history: list[dict[str, float]]


def trained(
    values: Mapping[str, Any],
    epochs: int,
    scores: Sequence[float] = (1, 2, 3, 4),
    resume: Path | None = None,
    keep: Path | None = None,
) -> Part:
    model, asked = built(values, epochs)
    earlier = load(resume, model, RECIPE, epochs) if resume else None
    history = [dict(epoch) for epoch in earlier.history] if earlier else []
    last: list[npt.NDArray[Any]] = []

    def after_epoch(epoch: int, metrics: dict[str, float], _: npt.NDArray[np.float32]) -> Verdict:
        history.append({"epoch": epoch, **metrics})
        return Verdict(scores[epoch - 1], True)

    def left(best: Best) -> None:
        last.extend(state(model))
        if keep:
            save(keep, model, Checkpoint(best, history), RECIPE)

    fitted = fit(model, asked, TRAINING, VALIDATION, seed=3, after_epoch=after_epoch, earlier=earlier, keep=left)
    part = Part(fitted, last, model.get_weights(), history)
    release(model)
    return part


def timeless(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in epoch.items() if name != "epoch_seconds"} for epoch in history]


def _case(values: dict[str, Any], scores: tuple[float, ...], marks: Any = pytest.mark.slow) -> Any:
    return pytest.param(values, scores, marks=marks, id="-".join(values) or "tutorial")


@pytest.mark.parametrize(
    ("values", "scores"),
    [
        _case({}, (1, 2, 3, 4), ()),
        _case({"dropout": 0.4, "batch_norm": True, "rotation": 10.0, "brightness": 0.2}, (3, 1, 2, 2.5), ()),
        _case({"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.01}, (1, 3, 2, 3)),
        _case({"optimizer": "adamw", "weight_decay": 0.01}, (1, 2, 4, 3)),
        _case({"optimizer": "rmsprop", "momentum": 0.5, "weight_decay": 0.01}, (NAN, NAN, NAN, NAN)),
        _case({"schedule": "cosine", "learning_rate": 0.01, "label_smoothing": 0.1}, (NAN, 1, NAN, 2)),
        _case(
            {"precision": "float16", "dropout": 0.3, "momentum": 0.9, "optimizer": "sgd", "schedule": "cosine"},
            (4, 3, 2, 1),
        ),
        _case({"precision": "bfloat16", "batch_norm": True}, (1, 2, 3, 4)),
        _case(
            {"class_weight": "balanced", "head": "average", "normalization": "standardize", "channels": 1}, (2, 1, 2, 3)
        ),
    ],
)
def test_two_epochs_and_two_more_are_four_epochs(
    tmp_path: Path, values: dict[str, Any], scores: tuple[float, ...]
) -> None:
    path = tmp_path / "2.npz"
    whole = trained(values, FULL, scores)
    first = trained(values, 2, scores, keep=path)
    rest = trained(values, FULL, scores, resume=path, keep=path)
    assert len(whole.last) > len(whole.best)
    assert not equal(first.last, whole.last)
    assert equal(rest.last, whole.last)
    assert equal(rest.best, whole.best)
    assert rest.fitted.best_epoch == whole.fitted.best_epoch
    np.testing.assert_array_equal(rest.fitted.probabilities, whole.fitted.probabilities)
    assert timeless(rest.history) == timeless(whole.history)
    assert rest.history[:2] == first.history
    assert (rest.fitted.epochs, rest.fitted.images) == (2, 2 * len(TRAINING))

    model, _ = built(values)
    again = load(path, model, RECIPE, FULL + 1)
    assert (again.best.epoch, again.history) == (whole.fitted.best_epoch, rest.history)
    np.testing.assert_equal(again.best.score, scores[again.best.epoch - 1])
    assert equal(again.best.weights, whole.best)
    assert equal(state(model), whole.last)


def test_a_chain_of_three_is_one_training(tmp_path: Path) -> None:
    values = {"dropout": 0.4, "schedule": "cosine"}
    trained(values, 1, keep=tmp_path / "1.npz")
    trained(values, 3, resume=tmp_path / "1.npz", keep=tmp_path / "3.npz")
    rest, whole = trained(values, FULL, resume=tmp_path / "3.npz"), trained(values, FULL)
    assert equal(rest.last, whole.last)
    assert [epoch["epoch"] for epoch in rest.history] == [1, 2, 3, 4]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two epochs, the first of them the best."""
    path = tmp_path_factory.mktemp("checkpoint") / "2.npz"
    trained({}, 2, (2, 1), keep=path)
    return path


def refused(path: Path, values: Mapping[str, Any] | None = None, epochs: int = FULL, **recipe: object) -> str:
    """Why the checkpoint is refused, which leaves the model as it was."""
    model, asked = built(values or {})
    fresh, _ = built(values or {})
    with pytest.raises(CheckpointError) as raised:
        load(path, model, {**RECIPE, **recipe}, epochs)
    assert equal(state(model), state(fresh))
    assert asked.epochs == FULL
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_checkpoint_needs_no_pickle_and_leaves_nothing_beside_it(kept: Path) -> None:
    assert [file.name for file in kept.parent.iterdir()] == ["2.npz"]
    with np.load(kept, allow_pickle=False) as file:
        assert all(file[name].dtype.kind in "fiuU" for name in file.files)
        assert json.loads(str(file["about"]))["recipe"] == RECIPE


def test_a_checkpoint_of_something_else_is_refused(kept: Path, tmp_path: Path) -> None:
    assert "FileNotFoundError" in refused(tmp_path / "none.npz")
    assert "its seed is 3, not 4" in refused(kept, seed=4)
    assert "its kernel_size is None, not 3" in refused(kept, kernel_size=3)
    assert "has 2 epochs" in refused(kept, epochs=2)
    assert "(3, 3, 3, 2)" in refused(kept, {"filters": 3})
    assert "arrays of state" in refused(kept, {"optimizer": "sgd"})
    assert "arrays of best" in refused(kept, {"layers": 2})


def test_a_damaged_checkpoint_is_refused(kept: Path, tmp_path: Path) -> None:
    whole, path = kept.read_bytes(), tmp_path / "damaged.npz"
    for damaged in (b"", b"not a zip at all", whole[:100], whole[: len(whole) // 2], whole[:-1], whole[30:]):
        path.write_bytes(damaged)
        assert "damaged.npz" in refused(path)
    np.save(path.open("wb"), np.zeros(3))
    refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("about.npy", b"\x93NUMPY\x01\x00")
    refused(path)


def test_a_flipped_bit_is_seen_or_changes_nothing(kept: Path, tmp_path: Path) -> None:
    whole, path = kept.read_bytes(), tmp_path / "flipped.npz"
    right, _ = built({})
    best = load(kept, right, RECIPE, FULL).best
    seen = 0
    for at in np.random.default_rng(0).integers(0, len(whole), 60):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(at) % 8
        path.write_bytes(flipped)
        model, _ = built({})
        try:
            loaded = load(path, model, RECIPE, FULL)
        except CheckpointError:
            seen += 1
        else:
            assert equal(state(model), state(right))
            assert equal([loaded.best.probabilities, *loaded.best.weights], [best.probabilities, *best.weights])
    assert seen > 30


def test_a_training_that_fails_to_write_leaves_the_older_checkpoint(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "2.npz"
    model, _ = built({})
    so_far = load(kept, model, RECIPE, FULL)
    save(path, model, so_far, RECIPE)
    before = path.read_bytes()
    assert before == kept.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="no space"):
        save(path, model, so_far, RECIPE)
    assert [file.name for file in path.parent.iterdir()] == ["2.npz"]
    assert path.read_bytes() == before


def test_nothing_left_to_train_is_refused(kept: Path) -> None:
    model, asked = built({}, epochs=2)
    earlier = load(kept, model, RECIPE, FULL)
    with pytest.raises(ValueError, match="2 epochs are trained"):
        fit(model, asked, TRAINING, VALIDATION, seed=3, after_epoch=lambda *_: Verdict(0, True), earlier=earlier)


# trials


class Place:
    """Runs trials here, on a few phantoms, each in a run of its own in a new MLflow."""

    def __init__(self) -> None:
        source = open_source(DataSpec(source="phantom", phantom=PhantomSpec(patients=12, size=64)))
        self.data = prepare(source, [32], 0.3, 0)
        self.store, self.outbox = connect(), open_outbox(Path("outbox"))
        self.reported: list[int] = []
        self._experiment = self.store.client.create_experiment("chain")
        self._prune_after = 0

    def progress(self, epoch: int, step: int, steps: int) -> None:
        pass

    def report(self, epoch: int, value: float, metrics: Mapping[str, float]) -> bool:
        self.reported.append(epoch)
        return epoch != self._prune_after

    def trial(
        self,
        epochs: int,
        *,
        resume: Path | None = None,
        keep: Path | None = None,
        prune_after: int = 0,
        seed: int = 3,
    ) -> tuple[TrialResult, Run]:
        """A rung of a training of `FULL` epochs, and its run as MLflow has it."""
        self._prune_after, self.reported = prune_after, []
        values: dict[str, Value] = {
            "image_size": 32,
            "filters": 4,
            "dense_units": 8,
            "dropout": 0.3,
            "schedule": "cosine",
        }
        values |= {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.01, "epochs": epochs}
        task = TrialTask(
            study="chain",
            candidate=Candidate(0, values, full_epochs=FULL),
            run_id=self.store.client.create_run(self._experiment).info.run_id,
            outbox=self.outbox,
            objectives=("val_auc", "predict_ms", "model_bytes"),
            seed=seed,
            data=self.data,
            resume=str(resume) if resume else None,
            keep=str(keep) if keep else None,
        )
        with run(task, self) as result:
            send(self.outbox, self.store)
            return result, self.store.client.get_run(task.run_id)

    def curves(self, result: TrialResult) -> dict[str, list[tuple[int, float]]]:
        names, client = ("loss", "accuracy", "auc", "val_loss", "val_accuracy", "val_auc"), self.store.client
        return {name: [(m.step, m.value) for m in client.get_metric_history(result.run_id, name)] for name in names}

    def tables(self, result: TrialResult) -> list[list[dict[str, str]]]:
        """The lines of history.csv, without their time, and of predictions.csv."""
        paths = (
            self.store.client.download_artifacts(result.run_id, f"{name}.csv") for name in ("history", "predictions")
        )
        tables = [list(csv.DictReader(Path(path).read_text(encoding="utf-8").splitlines())) for path in paths]
        return [[row | {"epoch_seconds": ""} for row in table] for table in tables]


TIMES = {"train_seconds", "images_per_second", "predict_ms", "epochs_trained", "model_bytes"}
"""Metrics of a trial that are of its own part, or hold the time of writing."""


def test_two_trials_in_a_chain_are_one_trial(project: Path) -> None:
    place, first, second = Place(), project / "kept" / "0.npz", project / "kept" / "1.npz"
    whole, _ = place.trial(FULL)
    assert place.reported == [1, 2, 3, 4]
    rung, _ = place.trial(2, keep=first)
    rest, record = place.trial(FULL, resume=first, keep=second)
    assert place.reported == [3, 4]
    assert [result.state for result in (whole, rung, rest)] == ["complete"] * 3
    assert [result.metrics["epochs_trained"] for result in (whole, rung, rest)] == [4, 2, 2]
    assert rest.value == whole.value == rest.metrics["best_val_auc"]
    assert without(rest.metrics, TIMES) == without(whole.metrics, TIMES)
    assert place.curves(rest) == place.curves(whole)
    assert place.tables(rest) == place.tables(whole)
    assert len(place.tables(rest)[0]) == FULL
    assert [file.name for file in sorted(first.parent.iterdir())] == ["0.npz", "1.npz"]
    assert "pneumo.restarted" not in record.data.tags
    assert record.data.metrics["epochs_trained"] == 2
    assert record.data.metrics["predict_ms"] == rest.metrics["predict_ms"] > 0
    assert {objective_metric(name) for name in ("val_auc", "predict_ms", "model_bytes")} <= set(rest.metrics)


def test_a_pruned_trial_is_taken_up_and_a_wrong_checkpoint_restarts(project: Path) -> None:
    place, path = Place(), project / "0.npz"
    pruned, _ = place.trial(2, keep=path, prune_after=1)
    assert (pruned.state, pruned.metrics["epochs_trained"]) == ("pruned", 1)
    rest, _ = place.trial(2, resume=path)
    assert (place.reported, rest.metrics["epochs_trained"]) == ([2], 1)

    other, record = place.trial(2, resume=path, seed=4)
    assert place.reported == [1, 2]
    assert record.data.tags["pneumo.restarted"] == "checkpoint 0.npz: is of another training: its seed is 3, not 4"
    anew, _ = place.trial(2, seed=4)
    assert without(other.metrics, TIMES) == without(anew.metrics, TIMES)
    assert place.curves(other) == place.curves(anew)


def test_a_failed_trial_leaves_no_checkpoint(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project / "0.npz"

    def full(*_: Any) -> None:
        assert path.exists()
        raise OSError("no space left on device")

    monkeypatch.setattr(TrialLog, "model", full)
    failed, _ = Place().trial(1, keep=path)
    assert (failed.state, failed.error) == ("failed", "OSError: no space left on device")
    assert not path.exists()


def without(metrics: Mapping[str, float], names: set[str]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in names}
