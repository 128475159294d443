"""What a search does before and after its trials: known configurations, earlier studies, confirmations, the Pareto front."""

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


def read_table(folder: Path, study: str, name: str) -> list[dict[str, str]]:
    """Return the rows of a CSV artifact of a study's run."""
    parent, _ = runs(folder, study)
    file = client(folder).download_artifacts(parent.info.run_id, name, str(folder))
    return list(csv.DictReader(Path(file).read_text(encoding="utf-8").splitlines()))


def confirmations(folder: Path, study: str) -> list[tuple[int, int, str, float]]:
    """Return trial, seed, status and value of each run of a confirmation, by trial and seed."""
    store = client(folder)
    experiment = store.get_experiment_by_name(study)
    assert experiment is not None
    confirmation_runs = store.search_runs([experiment.experiment_id], "tags.`pneumo.role` = 'confirm'")
    return sorted(
        (
            int(run.data.tags["pneumo.trial"]),
            int(run.data.params["seed"]),
            run.info.status,
            run.data.metrics.get("best_val_auc", math.nan),
        )
        for run in confirmation_runs
    )


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Return the folder of a study whose two best trials were confirmed, its experiment file and the output of the search."""
    folder = tmp_path_factory.mktemp("confirmed")
    options = {"trials": 3, "try": [{"filters": 16}], "confirm": {"top": 2, "seeds": 2}}
    experiment = write(folder, hyperparameters=SPACE, search=options)
    done = search(experiment, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, experiment, done.stdout


def test_the_best_trials_are_confirmed_and_the_mean_decides(confirmed: tuple[Path, Path, str]) -> None:
    folder, _, output = confirmed
    parent, trials = runs(folder, "small")
    assert trials[1].data.params["filters"] == "16"  # the known configuration, after the baseline
    confirmed_runs = confirmations(folder, "small")
    values = {run.data.tags["pneumo.trial"]: run.data.metrics["best_val_auc"] for run in trials}
    best_two = sorted(values, key=lambda trial: (-values[trial], int(trial)))[:2]
    assert {trial for trial, *_ in confirmed_runs} == set(map(int, best_two))
    assert [(seed, status) for _, seed, status, _ in confirmed_runs] == [
        (FIRST_SEED, "FINISHED"),
        (FIRST_SEED + 1, "FINISHED"),
    ] * 2
    means = {
        number: statistics.mean(value for trial, *_, value in confirmed_runs if trial == number)
        for number in map(int, best_two)
    }
    best = max(means, key=lambda trial: (means[trial], -trial))
    assert parent.data.metrics["best_trial"] == best
    assert parent.data.metrics["confirmed_mean"] == pytest.approx(means[best])
    assert parent.data.metrics["confirmed_low"] <= means[best] <= parent.data.metrics["confirmed_high"]
    assert len(read_table(folder, "small", "confirm.csv")) == 4
    page = client(folder).download_artifacts(parent.info.run_id, "report.html", str(folder))
    assert "mean and 95 % interval" in Path(page).read_text(encoding="utf-8")
    assert "Confirmed with other seeds: mean val_auc" in output
    assert f"Trial {best} over 2 other seeds: mean val_auc" in output


def test_a_complete_confirmation_is_not_trained_again(confirmed: tuple[Path, Path, str]) -> None:
    folder, experiment, _ = confirmed
    before = confirmations(folder, "small")
    done = search(experiment, folder=folder)
    assert done.returncode == 0
    assert "has its 3 trials already" in done.stdout
    assert "Confirmed with other seeds: mean val_auc" in done.stdout
    assert confirmations(folder, "small") == before

    # The run of a confirmation that a kill interrupted is closed, and the confirmation is trained again. At the same time
    # a third seed is added for both trials.
    store = client(folder)
    mlflow_experiment = store.get_experiment_by_name("small")
    assert mlflow_experiment is not None
    killed = store.search_runs([mlflow_experiment.experiment_id], "tags.`pneumo.role` = 'confirm'")[0].info.run_id
    store.delete_tag(killed, "pneumo.state")
    store.update_run(killed, status="RUNNING")
    done = search(experiment, "--set", "search.confirm.seeds=3", folder=folder)
    assert done.returncode == 0, done.stderr
    assert store.get_run(killed).info.status == "KILLED"
    statuses = [status for *_, status, _ in confirmations(folder, "small")]
    assert (statuses.count("FINISHED"), statuses.count("KILLED")) == (6, 1)
    assert len(read_table(folder, "small", "confirm.csv")) == 6


def test_a_search_learns_from_an_earlier_study(confirmed: tuple[Path, Path, str]) -> None:
    folder, experiment, _ = confirmed
    before = runs(folder, "small")[1]
    options = ["--set", "search.from=small", "--set", "search.confirm=null", "--trials", 1]
    done = search(experiment, "--name", "next", *options, "--set", "search.baseline=false", folder=folder)
    assert done.returncode == 0, done.stderr
    outside = sum(run.data.params["filters"] == "32" for run in before)  # the baseline, which is not in the space
    assert f"From study small: {len(before) - outside} of {len(before)} trials fit this space" in done.stdout
    assert len(runs(folder, "next")[1]) == 1

    absent = search(experiment, "--name", "other", *options, "--set", "search.from=nothing", folder=folder)
    assert absent.returncode == 2
    assert "search.from: there is no study 'nothing' with finished trials" in absent.stderr
    other_pictures = search(experiment, "--name", "other", *options, "--set", "data.validation=0.4", folder=folder)
    assert other_pictures.returncode == 2
    assert "has other validation pictures" in other_pictures.stderr


def test_two_objectives_give_a_pareto_front_and_the_rule_of_promotion_chooses_the_best(tmp_path: Path) -> None:
    experiment = write(
        tmp_path,
        hyperparameters=SPACE | {"filters": [2, 16]},
        search={"trials": 4, "objective": ["val_auc", "parameters"], "algorithm": "nsga2"},
        promote={"max": "val_auc", "subject_to": {"parameters": {"max": 5000}}},
    )
    done = search(experiment, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    parent, trials = runs(tmp_path, "small")
    front = read_table(tmp_path, "small", "pareto.csv")
    values = [(run.data.metrics["best_val_auc"], run.data.metrics["parameters"]) for run in trials]
    undominated = {
        number
        for number, (auc, size) in enumerate(values)
        if not any(a >= auc and s <= size and (a, s) != (auc, size) for a, s in values)
    }
    assert {int(row["trial"]) for row in front} == undominated
    assert f"The Pareto front: {len(front)} of 4 trials" in done.stdout
    small = [number for number, (_, size) in enumerate(values) if size <= 5000]
    best = max(small, key=lambda number: (values[number][0], -number), default=None)
    assert parent.data.metrics.get("best_trial") == best
    assert "maximize val_auc, parameters at most 5,000" in done.stdout


def test_trial_after_trial_that_fails_is_status_3_with_the_cause(tmp_path: Path) -> None:
    # The weight decay multiplies the weights by 1 - 10 * 1 at each step, so that they grow without bound.
    diverging = {"optimizer": "sgd", "learning_rate": 10.0, "weight_decay": 1.0, "batch_size": 1, "filters": [2, 4]}
    experiment = write(tmp_path, hyperparameters=diverging, search={"trials": 9, "max_failures": 2, "baseline": False})
    done = search(experiment, folder=tmp_path)
    assert done.returncode == 3
    assert "pneumo.search: 2 trials in a row failed" in done.stderr
    assert "loss is" in done.stderr
    assert "run the same command again" in done.stdout
    parent, trials = runs(tmp_path, "small")
    assert [run.info.status for run in (parent, *trials)] == ["FAILED"] * 3


def test_a_space_of_few_networks_ends_the_study_and_says_so(tmp_path: Path) -> None:
    experiment = write(tmp_path, hyperparameters={"filters": [2, 4]}, search={"trials": 8})
    done = search(experiment, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Ended: every combination of the space was tried." in done.stdout
    sentence = (
        "not trained: an earlier one has the same network; search.confirm trains the best again with other seeds."
    )
    assert sentence in done.stdout
    assert "Search further" not in done.stdout
    parent, trials = runs(tmp_path, "small")
    assert [run.data.params["filters"] for run in trials[:1]] == ["32"]
    assert sorted(run.data.params["filters"] for run in trials[1:]) == ["2", "4"]
    assert parent.data.tags["pneumo.ended"] == "every combination of the space was tried"
    assert parent.data.metrics["proposals_repeat"] >= 1
    assert parent.data.metrics["proposals_unbuildable"] == 0
    assert sentence in parent.data.tags["mlflow.note.content"]

    again = search(experiment, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert sentence in again.stdout
    assert len(runs(tmp_path, "small")[1]) == 3
    assert search("--check", "small", folder=tmp_path).stdout == "Study small: 3 trials, 4 runs, no faults.\n"
