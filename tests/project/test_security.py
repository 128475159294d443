"""An experiment file is data, nothing pickled is loaded, no secret is written, no name leads out of its folder.

Other tests of security: hostile archives (tests/data/test_hostile.py), names of pictures (tests/predict/test_predict.py),
checkpoints (tests/cnn/test_checkpoint.py), MedMNIST files (tests/data/test_medmnist.py), ports and passwords of the stack
(tests/project/test_docker.py).
"""

from __future__ import annotations

import ast
import os
import pickle
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pneumo.engines.storage_url import storage_error
from pneumo.spec.errors import RequestError
from tests.conftest import ROOT
from tests.support.in_process import RunHere
from tests.support.mlflow_server import serve
from tests.support.postgres import Postgres
from tests.support.program import command, search, write
from tests.support.served import Small

CODE = {
    "a tag in the file": "name: x\ndata: !!python/object/apply:os.system ['touch hacked']\n",
    "a module": "name: x\nhyperparameters: {layers: !!python/module:os {}}\n",
    "an object": "!!python/object/new:os.system ['touch hacked']\n",
}


@pytest.mark.parametrize("text", CODE.values(), ids=CODE.keys())
def test_an_experiment_is_data_never_code(tmp_path: Path, text: str, run_here: RunHere) -> None:
    (tmp_path / "experiment.yaml").write_text(text)
    done = run_here("search", "experiment.yaml", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "not valid YAML" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.yaml"]


def test_a_setting_is_data_never_code(tmp_path: Path, run_here: RunHere) -> None:
    experiment = write(tmp_path)
    done = run_here(
        "search", experiment, "--set", "layers=!!python/object/apply:os.system ['touch hacked']", folder=tmp_path
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "not valid YAML" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.yaml"]


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def called(call: ast.Call) -> str:
    return ast.unparse(call.func)


def test_the_code_loads_nothing_that_can_hold_code() -> None:
    """The pipes to worker processes are an exception: they pickle, but no other process can write to them."""
    loads = {"joblib", "dill", "cloudpickle", "shelve", "marshal", "torch"}
    for path in (ROOT / "pneumo").rglob("*.py"):
        where = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not loads & {name.split(".")[0] for name in names}, where
            assert "pickle" not in names or where == "pneumo/compute/worker.py"
        for call in calls(path):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert called(call) not in ("eval", "exec", "os.system", "yaml.unsafe_load"), where
            if called(call) in ("np.load", "numpy.load"):
                assert given.get("allow_pickle") == "False", where
            if called(call) == "yaml.load":
                assert given["Loader"] == "_Loader", where
            if called(call).endswith("saving.load_model"):
                assert given.get("safe_mode") == "True", where
            assert given.get("shell") != "True", where


def test_a_network_that_holds_code_is_not_loaded(tmp_path: Path) -> None:
    import keras

    from pneumo.cnn.load import load_network

    network = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * 2)])
    network.save(tmp_path / "model.keras")
    with pytest.raises(RequestError, match="cannot be loaded as a network"):
        load_network(tmp_path / "model.keras")


class Evil:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_registered_model_with_something_pickled_is_not_loaded(small: Small, tmp_path: Path) -> None:
    from pneumo.tracking.served import load_folder

    folder, hacked = tmp_path / "model", tmp_path / "hacked"
    shutil.copytree(small.served.networks[0].parent.parent.parent.parent, folder)
    assert load_folder(folder, "a copy").decision == small.served.decision
    for network in folder.rglob("model.keras"):
        (network.parent.parent / "custom_objects.cloudpickle").write_bytes(pickle.dumps(Evil(hacked)))
        (network.parent / "custom_objects.cloudpickle").write_bytes(pickle.dumps(Evil(hacked)))
    with pytest.raises(Exception, match="pickle"):
        load_folder(folder, "a copy")
    assert not hacked.exists()


@pytest.mark.parametrize("name", ["../climbed.txt", "plots/../../climbed.txt", "/climbed.txt"])
def test_an_artifacts_name_stays_in_its_run(small: Small, name: str) -> None:
    from pneumo.tracking.runs import log_files

    client = small.store.client
    before = [file.path for file in client.list_artifacts(small.trial_run)]
    with pytest.raises(ValueError, match="leads out of the run"):
        log_files(client, small.trial_run, {"plots/fine.txt": "fine", name: "climbed"})
    assert [file.path for file in client.list_artifacts(small.trial_run)] == before


@pytest.mark.parametrize("name", ["../up", "a/b", "..", ".hidden", "a\\b", "a b"])
def test_a_studys_name_is_no_path(tmp_path: Path, name: str, run_here: RunHere) -> None:
    done = run_here("search", write(tmp_path), "--name", name, folder=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.yaml"]


def test_a_password_in_an_address_is_never_shown() -> None:
    from sqlalchemy.engine import make_url

    from pneumo.spec.masking import mask_passwords

    addresses = ["http://me:very-secret@host:5000/x", "postgresql://me@host/db?password=very-secret&sslmode=require"]
    for address in (*addresses, "mysql://me:very-secret@host/db", "postgresql://host/db?sslPassword=very-secret"):
        assert "very-secret" not in mask_passwords(f"at {address}: refused")
        assert "refused" in mask_passwords(f"at {address}: refused")
    for address in addresses:
        output = str(storage_error(make_url(address), OSError(5, "no luck with very-secret")))
        assert "very-secret" not in output
        assert "no luck" in output


SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": "tracking-s3cret",
    "PGPASSWORD": "pg-s3cret",
    "KAGGLE_KEY": "kaggle-key-s3cret",
    "KAGGLE_API_TOKEN": "KGAT-token-s3cret",
    "AWS_SECRET_ACCESS_KEY": "aws-s3cret",
}


@pytest.mark.slow
def test_no_secret_reaches_what_a_search_writes_or_says(postgres: Postgres, tmp_path: Path) -> None:
    """The search has two trials that diverge, is interrupted, and loses its MLflow server."""
    storage = postgres.create("secrets")
    server = tmp_path / "server"
    server.mkdir()
    # With a learning rate of 10, a step of sgd multiplies the weights by 1 - 10 * 1: four of the eight trials diverge.
    space = {"filters": [2, 4, 8, 16], "optimizer": ["sgd"], "learning_rate": [0.01, 10.0]}
    fixed = {"weight_decay": 1.0, "batch_size": 1, "epochs": 40}
    options = {"trials": 8, "algorithm": "grid", "baseline": False}
    experiment = write(tmp_path, hyperparameters={**space, **fixed}, search=options)
    environment = {name: value for name, value in SECRETS.items() if name != "PGPASSWORD"}
    output = ""
    with serve(server) as address:
        environment["MLFLOW_TRACKING_URI"] = f"http://someone:address-s3cret@{urlsplit(address).netloc}"
        arguments = command(experiment, "--storage", storage)
        program = subprocess.Popen(
            arguments,
            cwd=tmp_path,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert program.stdout is not None
        failed = 0
        for line in program.stdout:
            output += line
            failed += "failed" in line
            if failed == 2:
                break
        os.killpg(program.pid, signal.SIGINT)
        output += program.stdout.read()
        program.wait(60)
        assert "run the same command again" in output, output
        assert "***" in output
        checked = search("--check", "small", "--storage", storage, folder=tmp_path, **environment)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        output += checked.stdout + checked.stderr
    gone = search(experiment, "--storage", storage, folder=tmp_path, **environment)
    assert gone.returncode == 2
    output += gone.stdout + gone.stderr
    wrong = search(experiment, "--storage", storage.replace("/secrets", "/none"), folder=tmp_path, **environment)
    output += wrong.stdout + wrong.stderr

    secrets = {*SECRETS.values(), "address-s3cret", postgres.password}
    assert [secret for secret in secrets if secret in output] == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"mlflow.db", "error.txt"} <= {path.name for path in files}
    assert [(path, secret) for path in files for secret in secrets if secret.encode() in path.read_bytes()] == []
