"""The aliases of a registered model after a promotion, a refusal, a rollback, and a kill in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from pneumo.spec.errors import RequestError
from pneumo.tracking import registry
from pneumo.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS
from pneumo.tracking.store import Store
from tests.support.new_stores import new_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Return one store for the module. Each test has a model of its own."""
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield new_store(folder)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def version(store: Store, number: int, model: str) -> str:
    """Create a version with tags. It has no files, since the registry does not read them."""
    client = store.client
    experiment = client.get_experiment_by_name("any")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("any")
    run_id = client.create_run(experiment_id).info.run_id
    logged = client.create_logged_model(experiment_id, name="served", source_run_id=run_id)
    client.finalize_logged_model(logged.model_id, "READY")
    tags = {"pneumo.data": "kaggle", "pneumo.promotion": run_id, "test_auc": f"0.{number}"}
    made = registry.create(store, model, model_id=logged.model_id, run_id=run_id, tags=tags, card=f"Card {number}.")
    assert made.number == str(number)
    return made.number


def aliases(store: Store, model: str) -> dict[str, str]:
    return registry.registered_models(store)[model]


def test_a_version_is_born_with_its_evidence(store: Store, model: str) -> None:
    version(store, 1, model)
    made = store.client.get_model_version(model, "1")
    assert (made.description, made.tags["test_auc"]) == ("Card 1.", "0.1")
    registered = registry.version_with(store, model, "pneumo.promotion", made.tags["pneumo.promotion"])
    assert registered is not None
    assert registered.number == "1"
    assert registry.version_with(store, model, "pneumo.promotion", "another") is None
    assert registry.version_with(store, "nobody", "pneumo.promotion", "another") is None


def test_the_one_before_becomes_previous(store: Store, model: str) -> None:
    first, second, third = (version(store, number, model) for number in (1, 2, 3))
    assert registry.version_at(store, model, CHAMPION) is None
    assert registry.move(store, model, CHAMPION, first) is None
    assert aliases(store, model) == {CHAMPION: first}
    assert registry.move(store, model, CHAMPION, second) == first
    assert aliases(store, model) == {CHAMPION: second, PREVIOUS: first}
    assert registry.move(store, model, CHAMPION, second) is None
    assert aliases(store, model) == {CHAMPION: second, PREVIOUS: first}
    registry.challenge(store, model, third)
    assert aliases(store, model) == {CHAMPION: second, PREVIOUS: first, CHALLENGER: third}
    assert registry.move(store, model, CHAMPION, third) == second
    assert aliases(store, model) == {CHAMPION: third, PREVIOUS: second}, (
        "a challenger that was promoted is none any more"
    )


def test_another_alias_has_its_own_previous(store: Store, model: str) -> None:
    first, second = version(store, 1, model), version(store, 2, model)
    for alias in (CHAMPION, "staging"):
        registry.move(store, model, alias, first)
    registry.move(store, model, "staging", second)
    assert aliases(store, model) == {CHAMPION: first, "staging": second, "staging-previous": first}


def test_rolling_back_changes_places(store: Store, model: str) -> None:
    first, second = version(store, 1, model), version(store, 2, model)
    registry.move(store, model, CHAMPION, first)
    with pytest.raises(RequestError, match="nothing to go back to"):
        registry.roll_back(store, model, CHAMPION)
    registry.move(store, model, CHAMPION, second)
    assert registry.roll_back(store, model, CHAMPION) == (first, second)
    assert aliases(store, model) == {CHAMPION: first, PREVIOUS: second}
    assert registry.roll_back(store, model, CHAMPION) == (second, first)
    assert aliases(store, model) == {CHAMPION: second, PREVIOUS: first}
    with pytest.raises(RequestError, match=f"no registered model 'nobody'; there is .*{model}"):
        registry.roll_back(store, "nobody", CHAMPION)


@pytest.mark.parametrize("alias", [CHAMPION, "staging"])
@pytest.mark.parametrize(
    ("deleted", "expected", "answer"),
    [
        ("3", {"": "2"}, ("2", None)),  # the champion
        ("2", None, "version 3 has the alias {} and none has {}, so there is nothing to go back to"),
        ("23", None, "no version has the alias {} and none has {}, .*the versions are 1$"),
        ("123", None, "the versions are all deleted$"),
        ("1", {"": "2", "previous": "3"}, ("2", "3")),
    ],
)
def test_rolling_back_if_versions_were_deleted(
    store: Store, model: str, alias: str, deleted: str, expected: dict[str, str] | None, answer: tuple[str, str] | str
) -> None:
    for number in (1, 2, 3):
        registry.move(store, model, alias, version(store, number, model))
    for one in deleted:
        store.client.delete_model_version(model, one)
    previous = registry.previous_of(alias)
    if isinstance(answer, str):
        before = aliases(store, model)
        with pytest.raises(RequestError, match=answer.format(alias, previous)) as error:
            registry.roll_back(store, model, alias)
        assert "\n" not in str(error.value)
        assert aliases(store, model) == before
        return
    assert expected is not None
    assert registry.roll_back(store, model, alias) == answer
    assert aliases(store, model) == {previous if name else alias: number for name, number in expected.items()}
    assert "pneumo.moving" not in store.client.get_registered_model(model).tags


def test_a_move_to_a_version_that_was_deleted_meanwhile_blocks_nothing(store: Store, model: str) -> None:
    first, second = version(store, 1, model), version(store, 2, model)
    registry.move(store, model, CHAMPION, first)
    store.client.set_registered_model_tag(model, "pneumo.moving", json.dumps({CHAMPION: second, PREVIOUS: first}))
    store.client.delete_model_version(model, second)
    registry.finish_move(store, model)
    third = version(store, 3, model)
    registry.move(store, model, CHAMPION, third)
    assert aliases(store, model) == {CHAMPION: third, PREVIOUS: first}


class Died(BaseException):
    """Ends the process as a kill does: nothing after it runs."""


WRITES = [
    f"{verb}_registered_model_{what}"
    for verb, what in (("set", "tag"), ("set", "alias"), ("delete", "alias"), ("delete", "tag"))
]


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let the registry's writes die from the n-th on, counted from 0; with an empty list, none dies."""
    from mlflow import MlflowClient

    at: list[int] = []
    done = [0]

    def before(name: str) -> None:
        original = getattr(MlflowClient, name)

        def write(self: object, *arguments: object, **named: object) -> object:
            if at and done[0] >= at[0]:
                raise Died(name)
            done[0] += 1
            return original(self, *arguments, **named)

        monkeypatch.setattr(MlflowClient, name, write)

    for name in WRITES:
        before(name)
    yield at
    assert done[0]


@pytest.mark.parametrize("step", range(6))
def test_a_move_that_died_is_finished_by_the_next(store: Store, model: str, dying: list[int], step: int) -> None:
    first, second, third = (version(store, number, model) for number in (1, 2, 3))
    registry.move(store, model, CHAMPION, first)
    registry.move(store, model, CHAMPION, second)
    registry.challenge(store, model, third)
    before, after = {CHAMPION: second, PREVIOUS: first, CHALLENGER: third}, {CHAMPION: third, PREVIOUS: second}
    # Writes until here: tag, champion and tag; tag, champion, previous and tag; challenger.
    dying.append(3 + 4 + 1 + step)
    try:
        registry.move(store, model, CHAMPION, third)
        died = False
    except Died:
        died = True
    dying.clear()
    assert died == (step < 5), "tag, champion, challenger taken away, previous, tag taken away"
    assert aliases(store, model)[CHAMPION] == (second if step < 2 else third), "champion moves in one step"
    if step == 0:
        assert aliases(store, model) == before
        registry.finish_move(store, model)
        assert aliases(store, model) == before, "nothing was begun"
    else:
        registry.finish_move(store, model)
        assert aliases(store, model) == after
    registry.finish_move(store, model)
    registry.move(store, model, CHAMPION, third)
    assert aliases(store, model) == after
    assert "pneumo.moving" not in store.client.get_registered_model(model).tags


def test_the_only_champion_is_found_and_several_are_named(project: Path) -> None:
    store = new_store(project)
    with pytest.raises(RequestError, match="no champion yet"):
        registry.only_champion(store)
    registry.move(store, "lungs", CHAMPION, version(store, 1, "lungs"))
    version(store, 1, "without")
    assert registry.only_champion(store) == "models:/lungs@champion"
    registry.move(store, "other", CHAMPION, version(store, 1, "other"))
    with pytest.raises(RequestError, match=r"2 champions \(lungs, other\)"):
        registry.only_champion(store)


def test_an_error_that_is_not_about_absence_comes_through(
    store: Store, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("the disk is full")

    monkeypatch.setattr(MlflowClient, "get_registered_model", refuse)
    with pytest.raises(MlflowException, match="disk is full"):
        registry.version_at(store, model, CHAMPION)
