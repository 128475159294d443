"""python -m pneumo.search: run a study, or resume one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pneumo.console.command import FAULTY, NOTHING_FIT, OK, describe_error, run_command
from pneumo.spec.errors import RequestError

QUICKSTART = Path("experiments/quickstart.yaml")
STORAGE = "sqlite:///mlruns/studies.db"

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(
    epilog="""[bold]Examples[/]

python -m pneumo.search\n
  the quick start: a small study on generated phantoms, offline, in about a minute

python -m pneumo.search experiments/article.yaml --data chest-xray-pneumonia.zip\n
  30 trials on real X-rays

python -m pneumo.search experiments/article.yaml --data chest-xray-pneumonia.zip --trials 40\n
  the same command again resumes the study; --trials is the total

python -m pneumo.search experiments/article.yaml --set layers=2 --set search.pruner=median --name two-layers --dry-run\n
  show what would run, with two settings changed

python -m pneumo.search experiments/article.yaml --engine keras-tuner --name article-bayesian\n
  the same space, with Keras Tuner as the engine

python -m pneumo.search experiments/article.yaml --data chest-xray-pneumonia.zip --ray auto\n
  the same trials on the Ray cluster that this machine belongs to

python -m pneumo.search --watch article\n
  show how far a study is that runs elsewhere; reads only

python -m pneumo.search --check article\n
  check that the record of this study is complete, in MLflow and in its database; reads only

Every trial is an MLflow run. To see and compare the runs, start mlflow ui in this folder.

[bold]Exit status[/]

0 done; 1 --check found faults; 2 the request was wrong; 3 no trial completed, or MLflow or the database was unreachable
for longer than search.outage; 130 interrupted. Nothing is lost: the same command resumes the study."""
)
def main(
    context: typer.Context,
    experiment: Annotated[
        Path | None,
        typer.Argument(
            metavar="EXPERIMENT.yaml", help="The experiment file. Default: the quick start.", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The pictures: a zip, a folder or a MedMNIST npz; replaces data.path."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="STUDY", help="Name of the study; replaces name.")] = None,
    trials: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Trials in all, those of earlier searches included.")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(metavar="90m", help="Start no trial after this time: 90s, 45m, 2h.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="E", help="What proposes the candidates: optuna or keras-tuner.")
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(metavar="N", help="Trials at a time, each on a GPU if there is one; auto: as many as pay here."),
    ] = None,
    gpu_share: Annotated[
        float | None, typer.Option(metavar="F", help="Share of a GPU for each trial: 0.5 puts two on one.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Train on a Ray cluster: auto, local, HOST:PORT or ray://HOST:PORT. Without --workers, on all of it.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one setting, as layers=2 or search.pruner=median. May be repeated.",
        ),
    ] = None,
    storage: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Database of the studies. Those of Keras Tuner are in a folder beside it.",
            envvar="PNEUMO_STORAGE",
        ),
    ] = STORAGE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run, and train nothing.")] = False,
    yaml: Annotated[bool, typer.Option("--yaml", help="With --dry-run: print the resolved experiment only.")] = False,
    check: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="Check that this study's record is complete, and do nothing else."),
    ] = None,
    watch: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="Show a study that runs elsewhere until it ends, and do nothing else."),
    ] = None,
) -> int:
    """Search hyperparameters of a chest X-ray classifier. Every trial is an MLflow run.

    The first trial is the tutorial's own network, so that a study says how much better its networks are. A study is known
    by its name: the same command again resumes it.
    """
    if yaml and not dry_run:
        raise RequestError("--yaml: belongs to --dry-run, which shows what would run and trains nothing")
    if check:
        return _check(check, storage)
    if watch:
        return _watch(watch, storage)
    from pneumo.console.display import open_console
    from pneumo.data.sources import open_source
    from pneumo.search.dry_run import show_dry_run
    from pneumo.search.places import check_ray_request
    from pneumo.search.preflight import check_leaks
    from pneumo.search.request import SearchRequest
    from pneumo.search.steps import run_search
    from pneumo.spec.experiment_file import read_experiment

    options = {
        "name": name,
        "data.path": data,
        "search.trials": trials,
        "search.timeout": timeout,
        "search.engine": engine,
        "search.workers": workers,
        "search.gpu_share": gpu_share,
    }
    given = {key: value for key, value in options.items() if value is not None}
    request = read_experiment(experiment or _quickstart(), set_ or (), given)
    if yaml:
        print(request.to_yaml().rstrip())
        return OK
    if ray is not None:
        check_ray_request(ray)
    source = open_source(request.data)
    findings = check_leaks(source, request)
    console = open_console()
    if dry_run:
        show_dry_run(request, source, findings, ray, console)
        return OK
    return run_search(SearchRequest(request, source, findings, storage, context.obj, console, ray))


def _quickstart() -> Path:
    """Return the quick start in the current folder, or the one that comes with the package."""
    from pneumo.spec.examples import examples_folder

    return QUICKSTART if QUICKSTART.exists() else examples_folder() / QUICKSTART.name


def _check(name: str, storage: str) -> int:
    """Print a line for each fault of a study's record, and a verdict. Return the exit status."""
    from pneumo.search.integrity import check_study
    from pneumo.search.preflight import check_databases
    from pneumo.search.steps import service_errors
    from pneumo.tracking.store import connect_existing

    check_databases(storage)
    try:
        report = check_study(connect_existing(read_only=True), name, storage)
    except service_errors() as error:
        print(f"pneumo.search: the record could not be read: {describe_error(error)}", file=sys.stderr)
        return NOTHING_FIT
    for line in (*report.notes, *report.faults, report.summary):
        print(line)
    return FAULTY if report.faults else OK


def _watch(name: str, storage: str) -> int:
    from pneumo.console.display import open_console
    from pneumo.search.preflight import check_databases
    from pneumo.search.watch import watch_study

    check_databases(storage)
    return watch_study(name, storage, open_console())


if __name__ == "__main__":
    run_command(app, "search")
