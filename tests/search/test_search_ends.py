"""How a search begins and ends, beyond its trials: known configurations, an earlier study, what is confirmed, a front."""

from __future__ import annotations

import csv
import math
import statistics
from pathlib import Path

import pytest

from pneumo.search.confirm import FIRST_SEED
from tests.support.program import client, runs, search, write

pytestmark = pytest.mark.slow

RATE = {"low": 0.001, "high": 0.01, "log": True}
SPACE = {"filters": [4, 8, 16], "learning_rate": RATE}


def table(folder: Path, study: str, name: str) -> list[dict[str, str]]:
    """An artifact of a study's run that is CSV."""
    parent, _ = runs(folder, study)
    file = client(folder).download_artifacts(parent.info.run_id, name, str(folder))
    return list(csv.DictReader(Path(file).read_text(encoding="utf-8").splitlines()))


def again(folder: Path, study: str) -> list[tuple[int, int, str, float]]:
    """Trial, seed, status and value of the runs that train a trial again, by trial and seed."""
    store = client(folder)
    experiment = store.get_experiment_by_name(study)
    assert experiment is not None
    found = store.search_runs([experiment.experiment_id], "tags.`pneumo.role` = 'confirm'")
    return sorted(
        (
            int(run.data.tags["pneumo.trial"]),
            int(run.data.params["seed"]),
            run.info.status,
            run.data.metrics.get("best_val_auc", math.nan),
        )
        for run in found
    )


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A folder with a study whose two best trials were trained again, its experiment and what the program said."""
    folder = tmp_path_factory.mktemp("confirmed")
    options = {"trials": 3, "try": [{"filters": 16}], "confirm": {"top": 2, "seeds": 2}}
    experiment = write(folder, hyperparameters=SPACE, search=options)
    done = search(experiment, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, experiment, done.stdout


def test_the_best_are_trained_again_and_the_mean_decides(confirmed: tuple[Path, Path, str]) -> None:
    folder, _, said = confirmed
    parent, trials = runs(folder, "small")
    assert trials[1].data.params["filters"] == "16"  # the known configuration, after the baseline
    repeated = again(folder, "small")
    values = {run.data.tags["pneumo.trial"]: run.data.metrics["best_val_auc"] for run in trials}
    best_two = sorted(values, key=lambda trial: (-values[trial], int(trial)))[:2]
    assert {trial for trial, *_ in repeated} == set(map(int, best_two))
    assert [(seed, status) for _, seed, status, _ in repeated] == [
        (FIRST_SEED, "FINISHED"),
        (FIRST_SEED + 1, "FINISHED"),
    ] * 2
    means = {int(t): statistics.mean(v for trial, *_, v in repeated if trial == int(t)) for t in best_two}
    best = max(means, key=lambda trial: (means[trial], -trial))
    assert parent.data.metrics["best_trial"] == best
    assert parent.data.metrics["confirmed_mean"] == pytest.approx(means[best])
    assert parent.data.metrics["confirmed_low"] <= means[best] <= parent.data.metrics["confirmed_high"]
    assert len(table(folder, "small", "confirm.csv")) == 4
    page = client(folder).download_artifacts(parent.info.run_id, "study.html", str(folder))
    assert "Confirmation" in Path(page).read_text(encoding="utf-8")
    assert "Confirmed with other seeds: mean val_auc" in said
    assert f"Trial {best} over 2 other seeds: mean val_auc" in said


def test_what_was_trained_again_is_not_trained_once_more(confirmed: tuple[Path, Path, str]) -> None:
    folder, experiment, _ = confirmed
    before = again(folder, "small")
    done = search(experiment, folder=folder)
    assert done.returncode == 0
    assert "has its 3 trials already" in done.stdout
    assert "Confirmed with other seeds: mean val_auc" in done.stdout
    assert again(folder, "small") == before

    # One that a killed search left half done is closed and trained from its beginning; a further seed joins the others.
    store = client(folder)
    found = store.get_experiment_by_name("small")
    assert found is not None
    half = store.search_runs([found.experiment_id], "tags.`pneumo.role` = 'confirm'")[0].info.run_id
    store.delete_tag(half, "pneumo.state")
    store.update_run(half, status="RUNNING")
    done = search(experiment, "--set", "search.confirm.seeds=3", folder=folder)
    assert done.returncode == 0, done.stderr
    assert store.get_run(half).info.status == "KILLED"
    statuses = [status for *_, status, _ in again(folder, "small")]
    assert (statuses.count("FINISHED"), statuses.count("KILLED")) == (6, 1)
    assert len(table(folder, "small", "confirm.csv")) == 6


def test_an_earlier_study_is_learned_from_and_not_run_again(confirmed: tuple[Path, Path, str]) -> None:
    folder, experiment, _ = confirmed
    before = runs(folder, "small")[1]
    options = ["--set", "search.from=small", "--set", "search.confirm=null", "--trials", 1]
    done = search(experiment, "--name", "next", *options, "--set", "search.baseline=false", folder=folder)
    assert done.returncode == 0, done.stderr
    outside = sum(run.data.params["filters"] == "32" for run in before)  # the tutorial's own, which the space lacks
    assert f"From study small: {len(before) - outside} of {len(before)} trials fit this space" in done.stdout
    assert len(runs(folder, "next")[1]) == 1

    absent = search(experiment, "--name", "other", *options, "--set", "search.from=nothing", folder=folder)
    assert absent.returncode == 2
    assert "search.from: there is no study 'nothing' with finished trials" in absent.stderr
    elsewhere = search(experiment, "--name", "other", *options, "--set", "data.validation=0.4", folder=folder)
    assert elsewhere.returncode == 2
    assert "has other validation pictures" in elsewhere.stderr


def test_two_objectives_leave_a_front_and_the_rule_says_which_is_best(tmp_path: Path) -> None:
    experiment = write(
        tmp_path,
        hyperparameters=SPACE | {"filters": [2, 16]},
        search={"trials": 4, "objective": ["val_auc", "parameters"], "algorithm": "nsga2"},
        promote={"max": "val_auc", "subject_to": {"parameters": {"max": 5000}}},
    )
    done = search(experiment, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    parent, trials = runs(tmp_path, "small")
    front = table(tmp_path, "small", "pareto.csv")
    figures = [(run.data.metrics["best_val_auc"], run.data.metrics["parameters"]) for run in trials]
    undominated = {
        number
        for number, (auc, size) in enumerate(figures)
        if not any(a >= auc and s <= size and (a, s) != (auc, size) for a, s in figures)
    }
    assert {int(row["trial"]) for row in front} == undominated
    assert f"The Pareto front: {len(front)} of 4 trials" in done.stdout
    small = [number for number, (_, size) in enumerate(figures) if size <= 5000]
    best = max(small, key=lambda number: (figures[number][0], -number), default=None)
    assert parent.data.metrics.get("best_trial") == best
    assert "maximize val_auc, parameters at most 5,000" in done.stdout


def test_trial_after_trial_that_fails_is_status_3_with_the_cause(tmp_path: Path) -> None:
    # Each step multiplies the weights by 1 - 10 * 1.
    diverging = {"optimizer": "sgd", "learning_rate": 10.0, "weight_decay": 1.0, "batch_size": 1, "filters": [2, 4]}
    experiment = write(tmp_path, hyperparameters=diverging, search={"trials": 9, "max_failures": 2, "baseline": False})
    done = search(experiment, folder=tmp_path)
    assert done.returncode == 3
    assert "pneumo.search: 2 trials in a row failed" in done.stderr
    assert "loss is" in done.stderr
    assert "run the same command again" in done.stdout
    parent, trials = runs(tmp_path, "small")
    assert [run.info.status for run in (parent, *trials)] == ["FAILED"] * 3
