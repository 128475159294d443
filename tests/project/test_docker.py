"""Checks of the image and the Compose stack that need no Docker: the linter, and what the project's code expects."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

DOCKER = ROOT / "docker"
COMPOSE = (DOCKER / "compose.yaml").read_text()
STACK: dict[str, Any] = yaml.safe_load(COMPOSE)
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
SEARCHES = ("search", "search-gpu")


def dockerfile() -> list[tuple[str, list[str]]]:
    """Return the instructions in order, as `("COPY", ["pneumo", "./pneumo"])`. Continued lines are joined."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split()[0], shlex.split(line)[1:]) for line in joined if line.strip()]


def stages() -> dict[str, list[tuple[str, list[str]]]]:
    """Return each stage's instructions, after those of the stages that it is built from."""
    by_name: dict[str, list[tuple[str, list[str]]]] = {}
    current: list[tuple[str, list[str]]] = []
    for instruction, arguments in dockerfile():
        if instruction == "FROM":
            current = list(by_name.get(arguments[0], []))
            by_name[arguments[2]] = current
        current.append((instruction, arguments))
    return by_name


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_everything_copied_exists_and_reaches_the_builder() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignored[0] == "*", "everything is ignored first: data, studies and passwords must stay out"
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    copied = [
        source
        for instruction, arguments in dockerfile()
        if instruction == "COPY" and not arguments[0].startswith("--from")
        for source in arguments[:-1]
    ]
    assert {"requirements.lock", "requirements-gpu.lock", "pneumo", "experiments"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in allowed), f".dockerignore keeps {source} out"


def test_every_image_has_a_version() -> None:
    built = {service["image"] for service in SERVICES.values() if "build" in service}
    pulled = {service["image"] for service in SERVICES.values()} - built
    pulled |= {arguments[0] for instruction, arguments in dockerfile() if instruction == "FROM"} - set(stages())
    assert pulled
    for image in pulled:
        assert re.search(r":\d[\w.-]*$", image), f"{image} needs a tag with a version"


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_image_runs_verbs_as_an_ordinary_user(target: str) -> None:
    instructions = stages()[target]
    last = dict(instructions)
    assert last["ENTRYPOINT"] == ["[python,", "-m]"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"][0])
    made = {word for instruction, words in instructions if instruction == "RUN" for word in words}
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            if "build" in service and isinstance(volume, str):
                assert volume.split(":")[1] in made, f"{volume}: a new volume would belong to root"


def test_only_the_gpu_image_holds_nvidias_libraries() -> None:
    text = {target: str(instructions) for target, instructions in stages().items()}
    assert "--from=packages-gpu" in text["gpu"]
    assert "requirements-gpu.lock" in text["packages-gpu"]
    assert "gpu" not in text["cpu"]
    assert "NVIDIA_VISIBLE_DEVICES" in text["gpu"]


def test_every_package_of_the_image_is_checked_against_its_hash() -> None:
    fetched = [line for line in map(str, dockerfile()) if "--requirement" in line and "--no-index" not in line]
    assert len(fetched) == 2
    assert all("--require-hashes" in line for line in fetched)


def test_ports_are_open_to_this_machine_only() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(ports) == {"mlflow", "serve"}
    assert all(port.startswith("127.0.0.1:") for opened in ports.values() for port in opened)


def test_there_is_no_password_but_the_users() -> None:
    setting = "${POSTGRES_PASSWORD:?set it in docker/.env}"
    given = [
        value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if "PASSWORD" in name
    ]
    assert given == [setting] * 6  # the services that use a database
    assert not re.search(r"PASSWORD:?-", COMPOSE), "a default password is public"
    assert not re.search(r"://[^/@\s]*:[^/@\s]*@", COMPOSE), "a password in a URL is written to logs"
    assert "\nPOSTGRES_PASSWORD=\n" in (DOCKER / ".env.example").read_text()
    assert ".env" in (DOCKER / ".gitignore").read_text().splitlines()


def test_the_example_names_every_setting() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE))
    described = set(re.findall(r"^(\w+)=", (DOCKER / ".env.example").read_text(), re.MULTILINE))
    assert used == described


def test_services_volumes_and_targets_fit_together() -> None:
    for service in SERVICES.values():
        for needed, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[needed]
        if "build" in service:
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
            assert service["build"]["target"] in stages()
            assert service["image"] == f"pneumo:{service['build']['target']}"
        for volume in service.get("volumes", ()):
            if isinstance(volume, str):
                source = volume.split(":")[0]
                assert (DOCKER / source).is_file() if source.startswith(".") else source in STACK["volumes"]


def test_mlflow_takes_the_servers_options() -> None:
    from mlflow.cli import server

    assert SERVICES["mlflow"]["entrypoint"] == ["mlflow", "server"]
    # MLflow parses the options and starts nothing. An unknown option or value is an error.
    options = server.make_context("server", list(SERVICES["mlflow"]["command"])).params
    assert options["port"] == 5000
    assert f"mlflow:{options['port']}" in options["allowed_hosts"].split(",")


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_reports_to_the_stack(name: str) -> None:
    search = SERVICES[name]
    assert search["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert "CREATE DATABASE optuna;" in (DOCKER / "databases.sql").read_text()
    assert search["entrypoint"][-1].endswith("@postgres/optuna")
    assert (ROOT / search["command"][0]).is_file()
    pictures = search["volumes"][0]
    assert pictures["read_only"]
    assert pictures["target"] == search["command"][search["command"].index("--data") + 1]
    assert any(volume.endswith(":/project/mlruns") for volume in search["volumes"][1:])


def test_the_searches_differ_in_the_gpu_only() -> None:
    own = {"image", "build", "deploy", "profiles"}
    cpu, gpu = (SERVICES[name] for name in SEARCHES)
    assert {k: v for k, v in cpu.items() if k not in own} == {k: v for k, v in gpu.items() if k not in own}
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert (cpu["profiles"], gpu["profiles"]) == (["cpu"], ["gpu"])


def test_search_has_the_options_that_the_stack_gives_it() -> None:
    [python, *verb], options = SERVICES["search"]["entrypoint"][:3], SERVICES["search"]["entrypoint"][3:]
    assert python == "python"
    done = subprocess.run([sys.executable, *verb, "--help"], capture_output=True, text=True, check=True)
    given = [o for o in (*options, *SERVICES["search"]["command"]) if o.startswith("--")]
    assert given == ["--storage", "--data"]
    for option in given:
        assert re.search(rf"{option}\b", done.stdout), option


def test_the_served_model_is_the_champion_of_the_stack() -> None:
    from mlflow.models.cli import serve

    service = SERVICES["serve"]
    assert service["entrypoint"] == ["mlflow", "models", "serve"]
    # MLflow parses the options and starts nothing. An unknown option or value is an error.
    options = serve.make_context("serve", list(service["command"])).params
    assert options["model_uri"] == "models:/${PNEUMO_MODEL:-article}@champion"
    assert options["env_manager"] == "local"
    assert service["ports"] == [f"127.0.0.1:${{SERVE_PORT:-{options['port']}}}:{options['port']}"]
    assert f":{options['port']}/health" in str(service["healthcheck"])
    assert service["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert "volumes" not in service, "the model comes from MLflow"


def test_a_promotion_reads_the_pictures_that_were_searched() -> None:
    promote, search = SERVICES["promote"], SERVICES["search"]
    same = ("environment", "volumes", "depends_on", "image", "build")
    assert {key: promote[key] for key in same} == {key: search[key] for key in same}
    assert promote["entrypoint"] == ["python", "-m", "pneumo.promote", "--data", "/data"]


def test_the_slurm_script_is_a_script() -> None:
    script = DOCKER / "slurm" / "search.sbatch"
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert script.read_text().startswith("#!/bin/bash\n")


def test_the_job_on_kubernetes_fits_the_image_and_the_search() -> None:
    job = yaml.safe_load((DOCKER / "kubernetes" / "search.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    locked = re.search(r"^ray==([\d.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert cluster["rayVersion"] == locked[1]
    assert "ray[client,default]" in (ROOT / "pyproject.toml").read_text(), "ray[default] takes the job"

    head, worker = cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]
    images = {group["template"]["spec"]["containers"][0]["image"] for group in (head, worker)}
    assert images == {SERVICES["search"]["image"]}
    users = {group["template"]["spec"]["securityContext"]["runAsUser"] for group in (head, worker)}
    assert users == {1000}
    assert "/etc/profile.d/pneumo.sh" in str(stages()["cpu"]), "KubeRay starts Ray in a login shell"

    python, option, verb, *options = shlex.split(job["spec"]["entrypoint"])
    assert (python, option, verb) == ("python", "-m", "pneumo.search")
    done = subprocess.run([sys.executable, "-m", verb, "--help"], capture_output=True, text=True, check=True)
    assert {"--data", "--ray", "--storage"} == {o for o in options if o.startswith("--")} <= set(done.stdout.split())
    mounts = {m["mountPath"] for m in head["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert all(any(o.startswith(f"{mount}/") for o in options) for mount in mounts)
    assert head["template"]["spec"]["containers"][0]["workingDir"] in mounts  # mlruns outlives the job
