"""The study of experiments/article.yaml on the real pictures, shortened: its record, its models, promotion and rollback."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pneumo.data.decoding import decode
from tests.conftest import ROOT
from tests.support.program import called, check_study, check_trial, client, runs, search

pytestmark = pytest.mark.slow

SHORTER = ["--set", "image_size=64", "--set", "epochs=2", "--set", "layers=[1, 2, 3]"]

LOAD = """
import sys, mlflow, numpy
store, model, pictures, probabilities = sys.argv[1:]
mlflow.set_tracking_uri(store)
numpy.save(probabilities, mlflow.pyfunc.load_model(model).predict(numpy.load(pictures)))
assert "pneumo" not in sys.modules
"""
"""A program that loads a logged model without pneumo and saves its probabilities."""


@pytest.fixture(scope="module")
def article(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[object]]:
    """Return the folder of a study of six trials, and the arguments of its search."""
    folder = tmp_path_factory.mktemp("article")
    arguments: list[object] = [ROOT / "experiments" / "article.yaml", "--data", archive, *SHORTER]
    done = search(*arguments, "--trials", 6, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "training 4,031" in done.stdout
    assert "sealed" in done.stdout
    return folder, arguments


EVALUATE = """
import sys, json, pathlib, mlflow
from sklearn import metrics as m
store, folder, to = sys.argv[1:]
mlflow.set_tracking_uri(store)
model = mlflow.pyfunc.load_model("models:/article@champion")
paths = sorted(map(str, pathlib.Path(folder).rglob("*.jpeg")))
predictions = model.predict(paths)
labels = [int("PNEUMONIA" in path) for path in paths]
predicted = [int(label == "PNEUMONIA") for label in predictions.label]
figures = {
    "accuracy": m.accuracy_score(labels, predicted), "sensitivity": m.recall_score(labels, predicted),
    "specificity": m.recall_score(labels, predicted, pos_label=0), "precision": m.precision_score(labels, predicted),
    "f1": m.f1_score(labels, predicted), "auc": m.roc_auc_score(labels, predictions.probability),
    "average_precision": m.average_precision_score(labels, predictions.probability),
    "brier": m.brier_score_loss(labels, predictions.probability), "pictures": len(paths),
}
json.dump(figures, open(to, "w"))
assert "pneumo" not in sys.modules
"""
"""A program that loads the champion without pneumo and computes its figures on a folder of pictures with scikit-learn."""


def read_predictions(folder: Path, run_id: str, to: Path) -> list[dict[str, str]]:
    """Return the rows of a trial's predictions.csv."""
    file = client(folder).download_artifacts(run_id, "predictions.csv", str(to))
    return list(csv.DictReader(Path(file).read_text(encoding="utf-8").splitlines()))


def test_the_record_of_the_study_is_complete_and_its_networks_learn(article: tuple[Path, list[object]]) -> None:
    folder, _ = article
    children = check_study(folder, "article", 6)
    for run in children:
        check_trial(folder, run)
    tutorial = children[0]
    assert tutorial.data.metrics["parameters"] == 3_937_409
    assert (
        tutorial.data.params
        | {
            "layers": "1",
            "filters": "32",
            "kernel_size": "3",
            "dense_units": "128",
            "image_size": "64",
            "optimizer": "adam",
            "learning_rate": "0.001",
            "batch_size": "32",
            "zoom": "0.2",
            "shear": "0.2",
            "horizontal_flip": "true",
        }
        == tutorial.data.params
    )
    assert all(run.data.metrics["best_val_auc"] > 0.8 for run in children)


def test_a_logged_model_repeats_its_predictions_in_a_new_process(
    article: tuple[Path, list[object]], archive: Path, tmp_path: Path
) -> None:
    folder, _ = article
    for run in check_study(folder, "article", 6)[:2]:
        rows = read_predictions(folder, run.info.run_id, tmp_path)
        assert len(rows) == 561
        assert {row["label"] for row in rows} == {"NORMAL", "PNEUMONIA"}
        with zipfile.ZipFile(archive) as pictures:
            grey_pictures = [
                decode(pictures.read(f"chest_xray/{row['name']}"), [64], row["name"]).squares[0] for row in rows
            ]
        np.save(tmp_path / "raw.npy", np.repeat(np.stack(grey_pictures)[..., None], 3, axis=-1))
        assert run.outputs is not None
        model = f"models:/{run.outputs.model_outputs[0].model_id}"
        files = [str(tmp_path / "raw.npy"), str(tmp_path / "out.npy")]
        command = [sys.executable, "-c", LOAD, f"sqlite:///{folder}/mlflow.db", model, *files]
        subprocess.run(command, check=True, cwd=tmp_path)
        probabilities = np.load(tmp_path / "out.npy")[:, 0]
        np.testing.assert_allclose(probabilities, [float(row["probability"]) for row in rows], atol=1e-5, rtol=0)


def test_the_split_keeps_patients_together(article: tuple[Path, list[object]], tmp_path: Path) -> None:
    folder, _ = article
    run = check_study(folder, "article", 6)[0]
    validation = read_predictions(folder, run.info.run_id, tmp_path)
    assert len({row["patient"] for row in validation}) == 293
    profiles = {
        entry.tags[0].value: json.loads(str(entry.dataset.profile))
        for entry in (run.inputs.dataset_inputs if run.inputs else [])
    }
    assert profiles["training"]["num_rows"] == 4031
    assert profiles["validation"] == {"num_rows": 561, "patients": 293, "NORMAL": 143, "PNEUMONIA": 418}


def test_the_same_command_again_does_nothing_and_more_trials_resume_the_study(
    article: tuple[Path, list[object]],
) -> None:
    folder, arguments = article
    before = [run.info.run_id for run in check_study(folder, "article", 6)]
    repeated = search(*arguments, "--trials", 6, folder=folder)
    assert repeated.returncode == 0
    assert "has its 6 trials already" in repeated.stdout
    more = search(*arguments, "--trials", 8, folder=folder)
    assert more.returncode == 0, more.stderr
    assert [run.info.run_id for run in check_study(folder, "article", 8)][:6] == before


def test_the_champion_predicts_the_test_folder_with_the_figures_of_its_promotion(
    article: tuple[Path, list[object]], archive: Path, tmp_path: Path
) -> None:
    folder, _ = article
    done = called("promote", "article", folder=folder)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "Compared with the study's baseline, trial 0:" in done.stdout
    with zipfile.ZipFile(archive) as pictures:
        tests = [name for name in pictures.namelist() if name.startswith("chest_xray/test/") and name.endswith(".jpeg")]
        pictures.extractall(tmp_path / "unpacked", tests)
    files = [str(tmp_path / "unpacked"), str(tmp_path / "figures.json")]
    subprocess.run([sys.executable, "-c", EVALUATE, f"sqlite:///{folder}/mlflow.db", *files], check=True, cwd=tmp_path)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures.pop("pictures") == 624
    version = client(folder).get_model_version_by_alias("article", "champion")
    recorded = client(folder).get_run(str(version.run_id)).data.metrics
    # The two sum the same numbers in another order, so the last digits of the floats may differ.
    assert figures == pytest.approx({name: recorded[f"test_{name}"] for name in figures}, abs=1e-14)
    assert openings(folder) == 1


def test_a_worse_study_is_refused_promoted_by_force_and_rolled_back(
    article: tuple[Path, list[object]], archive: Path
) -> None:
    folder, _ = article
    worse = ["--name", "worse", "--set", "layers=1", "--set", "filters=1", "--set", "dense_units=1"]
    worse += ["--set", "search.baseline=false", "--set", "image_size=16", "--set", "epochs=1", "--trials", "1"]
    done = search(ROOT / "experiments" / "article.yaml", "--data", archive, *worse, folder=folder)
    assert done.returncode == 0, done.stderr
    refused = called("promote", "worse", "--model", "article", folder=folder)
    assert refused.returncode == 3, (refused.stdout, refused.stderr)
    assert "beyond luck" in refused.stdout
    assert aliases(folder) == {"champion": 1, "challenger": 2}
    reason = "to test --force"
    forced = called("promote", "worse", "--model", "article", "--force", reason, folder=folder)
    assert forced.returncode == 0, forced.stderr
    assert aliases(folder) == {"champion": 2, "previous": 1}
    assert client(folder).get_model_version("article", "2").tags["pneumo.forced"] == reason
    assert called("promote", "--model", "article", "--rollback", folder=folder).returncode == 0
    assert aliases(folder) == {"champion": 1, "previous": 2}
    assert openings(folder) == openings(folder, "worse") == 1


def aliases(folder: Path) -> dict[str, int]:
    versions = client(folder).get_registered_model("article").aliases
    return {alias: int(version) for alias, version in versions.items()}


def openings(folder: Path, study: str = "article") -> int:
    """Return how often a study opened the sealed test set."""
    return int(runs(folder, study)[0].data.metrics["test_openings"])
