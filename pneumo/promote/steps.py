"""From a study's best trial to the registry: open the test pictures, judge, register, move the alias.

Each step looks whether it is done already, so that the same command finishes what an interruption or a kill has left. The
alias moves last, to a version that was born with its figures.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumo import __version__
from pneumo.console.command import silence_native_output
from pneumo.promote.choose import ChosenRun, choose_run
from pneumo.promote.evaluate import Evaluation, Reference, choose_reference, decision, evaluate, served
from pneumo.spec.errors import RequestError
from pneumo.spec.experiment import Experiment
from pneumo.spec.promotion import Promotion
from pneumo.spec.result import PARTS

if TYPE_CHECKING:
    from pneumo.data.pictures import Source
    from pneumo.evidence.gate import Gate
    from pneumo.evidence.intervals import Interval
    from pneumo.spec.run import TrialRun
    from pneumo.tracking.promotions import Asked, Opening
    from pneumo.tracking.registry import Version
    from pneumo.tracking.served import Decision
    from pneumo.tracking.store import Store

_VERDICT = "gate.json"
_CARD = "card.md"


@dataclass(frozen=True)
class Outcome:
    """A promotion and what it was decided by. `openings` are all of the study's, `elsewhere` counts those of other studies
    on the same test pictures."""

    promotion: Promotion
    figures: Mapping[str, Interval]
    gate: Gate
    openings: list[Opening]
    elsewhere: int
    decision: Decision


def promote(
    store: Store,
    asked: Asked,
    experiment: Experiment,
    source: Source,
    *,
    model: str,
    alias: str,
    force: str | None,
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> Outcome:
    """Judge the study's best trial, or the run that was asked for, and register it.

    `say` is told, a line each, what is about to be judged and that the test pictures are opened; `progress` how many of them
    are judged. Raises `RequestError` before anything is written where the request is wrong.
    """
    from pneumo.tracking import promotions as record
    from pneumo.tracking import registry
    from pneumo.tracking.study import trial_runs

    _check_pictures(store, asked, source, model)
    runs = trial_runs(store, asked.study)
    picked = choose_run(store, asked, experiment, runs)
    say(f"Study {asked.study}: {picked.why}")
    decided = decision(store, picked.run, experiment, source)
    registry.settle(store, model)
    champion = registry.at(store, model, alias)
    _check_classes(champion, source)
    if champion and champion.tags.get("pneumo.decision") == _decision_key(picked.run, decided, source):
        say(f"It has the alias {alias} already: version {champion.number} of {model}.")
        return _again(store, asked, source, champion, alias, decided)
    against = choose_reference(store, experiment, source, runs, picked.run, champion)
    key = _key(picked.run, decided, against, experiment, model, source)
    run = record.open_run(
        store,
        asked.study,
        asked.recorded,
        key=key,
        name=f"promotion-{picked.run.number:04d}",
        tags=_run_tags(asked, picked.run, source, model, against),
        params=_params(experiment, decided, alias),
    )
    try:
        if not run.judged:
            openings = record.record_opening(store, asked.recorded, picked.run.run_id, run.run_id)
            say(f"The test pictures are opened, for the {_ordinal(len(openings))} time by this study.")
            _judge_and_record(store, asked, experiment, source, picked, decided, against, run.run_id, progress)
        figures, gate = _verdict(store, run.run_id)
        promotion = _register(
            store,
            asked,
            source,
            picked,
            decided,
            gate,
            figures,
            model=model,
            alias=alias,
            force=force,
            run_id=run.run_id,
        )
    except BaseException:
        record.abandon(store, run.run_id)
        raise
    return _outcome(store, asked, source, promotion, figures, gate, decided)


def _check_pictures(store: Store, asked: Asked, source: Source, model: str) -> None:
    """Refuses other test pictures than the study's, and phantoms beside X-rays under one name."""
    from pneumo.tracking import registry

    if not source.sealed:
        raise RequestError(f"{source.description}: has no test pictures, and without them nothing can be promoted")
    before = asked.recorded.tags.get("pneumo.data.test")
    if before not in (None, source.test_digest):
        raise RequestError(
            f"study {asked.study}: its test pictures are not these of {source.description} (digest was {before}, now "
            f"{source.test_digest}); give the --data that it searched"
        )
    there = registry.pictures_kind(store, model)
    if there and (there == "phantom") != (source.kind == "phantom"):
        raise RequestError(
            f"model {model}: its versions are of {'phantoms' if there == 'phantom' else 'X-rays'} and this study is of "
            f"{'phantoms' if source.kind == 'phantom' else 'X-rays'}; give another name with --model"
        )


def _check_classes(champion: Version | None, source: Source) -> None:
    """Refuses a champion that tells other things apart: the two could not be compared."""
    told = champion.tags.get("pneumo.classes") if champion else None
    if champion and told not in (None, _classes(source)):
        raise RequestError(
            f"model {champion.model}: its version {champion.number} tells {told} apart, and this study {_classes(source)}; "
            f"give another name with --model"
        )


def _classes(source: Source) -> str:
    return " and ".join(source.classes)


def _judge_and_record(
    store: Store,
    asked: Asked,
    experiment: Experiment,
    source: Source,
    picked: ChosenRun,
    decided: Decision,
    against: Reference,
    run_id: str,
    progress: Callable[[int, int], None],
) -> None:
    from pneumo.cnn.device import warm_up
    from pneumo.data.sealed import open_sealed_test
    from pneumo.evidence.model_card import model_card
    from pneumo.promote.card_facts import facts
    from pneumo.tracking import promotions as record
    from pneumo.tracking.served import log_served

    with silence_native_output():
        warm_up()
    with tempfile.TemporaryDirectory() as folder:
        model = served(store, picked.run, decided, source, Path(folder, "ours"))
        judged = evaluate(
            model,
            against,
            open_sealed_test(source),
            experiment,
            title=f"{asked.study} trial {picked.run.number}",
            folder=Path(folder, "theirs"),
            progress=progress,
        )
        model_id = log_served(store, run_id, Path(folder, "ours"), {"pneumo.study": asked.study})
    verdict = {
        "figures": {name: interval.as_dict() for name, interval in judged.figures.items()},
        "gate": judged.gate.as_dict(),
        "unreadable": dict(judged.unreadable),
        "model_id": model_id,
    }
    about = facts(asked, experiment, source, picked.run, picked.why, decided)
    record.record_judged(
        store,
        run_id,
        test=source.test_digest,
        source=experiment.data.path or source.description,
        counts=judged.counts,
        metrics=_metrics(judged),
        files=judged.files
        | {_VERDICT: json.dumps(verdict, indent=1), _CARD: model_card(about, judged.figures, judged.gate)},
        tags={"pneumo.gate": "passed" if judged.gate.passed else "refused"},
    )


def _register(
    store: Store,
    asked: Asked,
    source: Source,
    picked: ChosenRun,
    decided: Decision,
    gate: Gate,
    figures: Mapping[str, Interval],
    *,
    model: str,
    alias: str,
    force: str | None,
    run_id: str,
) -> Promotion:
    """A version with its figures, where there is none yet, and the alias that it has earned."""
    from pneumo.tracking import promotions as record
    from pneumo.tracking import registry
    from pneumo.tracking.study import artifact

    refused = () if gate.passed else tuple(check.message for check in gate.checks if not check.passed)
    forced = force if refused else None
    verdict = "forced" if forced else "refused" if refused else "passed"
    tags = {
        "pneumo.study": asked.study,
        "pneumo.run": picked.run.run_id,
        "pneumo.trial": str(picked.run.number),
        "pneumo.promotion": run_id,
        "pneumo.version": __version__,
        "pneumo.data": source.kind,
        "pneumo.classes": _classes(source),
        "pneumo.data.test": source.test_digest,
        "pneumo.decision": _decision_key(picked.run, decided, source),
        "pneumo.threshold": repr(decided.threshold),
        "pneumo.temperature": repr(decided.temperature),
        "pneumo.against": gate.against,
        "pneumo.gate": verdict,
        "pneumo.gate.said": "; ".join(check.message for check in gate.checks) or "nothing was checked",
        "pneumo.test_openings": str(len(record.openings(store, asked.recorded))),
    }
    tags |= {
        f"pneumo.data.{part}": digest for part in PARTS if (digest := asked.recorded.tags.get(f"pneumo.data.{part}"))
    }
    tags |= {f"test_{name}": _figure_tag(interval) for name, interval in figures.items()}
    if forced:
        tags["pneumo.forced"] = forced
    version = registry.version_with(store, model, "pneumo.promotion", run_id)
    if version is None:
        # MLflow's versions do not know their logged model.
        tags["pneumo.model_id"] = model_id = json.loads(artifact(store, run_id, _VERDICT))["model_id"]
        card = artifact(store, run_id, _CARD)
        version = registry.create(store, model, model_id=model_id, run_id=run_id, tags=tags, card=card)
    elif forced:  # it was refused before
        registry.tag(store, version, {"pneumo.forced": forced, "pneumo.gate": "forced"})
    if refused and not forced:
        registry.challenge(store, model, version.number)
        promotion = Promotion(model, version.number, registry.CHALLENGER, run_id, refused)
    else:
        replaced = registry.move(store, model, alias, version.number)
        promotion = Promotion(model, version.number, alias, run_id, refused, forced, replaced)
    record.record_end(
        store, run_id, {"pneumo.model": model, "pneumo.model_version": version.number, "pneumo.gate": verdict}
    )
    return promotion


def _again(store: Store, asked: Asked, source: Source, champion: Version, alias: str, decided: Decision) -> Outcome:
    """What was decided when the version that has the alias got it; a run that was left open then is closed."""
    from pneumo.tracking import promotions as record

    run_id = champion.tags["pneumo.promotion"]
    figures, gate = _verdict(store, run_id)
    record.record_end(store, run_id, {"pneumo.model": champion.model, "pneumo.model_version": champion.number})
    refused = tuple(check.message for check in gate.checks if not check.passed)
    promotion = Promotion(champion.model, champion.number, alias, run_id, refused, champion.tags.get("pneumo.forced"))
    return _outcome(store, asked, source, promotion, figures, gate, decided)


def _outcome(
    store: Store,
    asked: Asked,
    source: Source,
    promotion: Promotion,
    figures: Mapping[str, Interval],
    gate: Gate,
    decided: Decision,
) -> Outcome:
    from pneumo.tracking import promotions as record

    others = record.elsewhere(store, asked.study, source.test_digest)
    return Outcome(promotion, figures, gate, record.openings(store, asked.recorded), others, decided)


def _verdict(store: Store, run_id: str) -> tuple[dict[str, Interval], Gate]:
    """Figures and gate, as a promotion's run has recorded them."""
    from pneumo.evidence.gate import Gate
    from pneumo.evidence.intervals import Interval
    from pneumo.tracking.study import artifact

    document = json.loads(artifact(store, run_id, _VERDICT))
    figures = {name: Interval.from_dict(numbers) for name, numbers in document["figures"].items()}
    return figures, Gate.from_dict(document["gate"])


def _metrics(judged: Evaluation) -> dict[str, float]:
    """What a promotion's run has as metrics; what is not defined is left out."""
    named: dict[str, Interval] = {f"test_{name}": interval for name, interval in judged.figures.items()}
    if judged.gate.auc_difference:
        named["gate_auc_difference"] = judged.gate.auc_difference
    metrics = {
        f"{name}{end}": value
        for name, interval in named.items()
        for end, value in (("", interval.value), ("_low", interval.low), ("_high", interval.high))
    }
    if judged.gate.mcnemar:
        metrics["gate_mcnemar_p"] = judged.gate.mcnemar.p_value
    metrics |= {"test_pictures": judged.counts["num_rows"], "test_patients": judged.counts["patients"]}
    metrics["test_unreadable"] = len(judged.unreadable)
    return {name: value for name, value in metrics.items() if value == value}  # noqa: PLR0124  (NaN)


def _run_tags(asked: Asked, run: TrialRun, source: Source, model: str, against: Reference) -> dict[str, str]:
    shared = {
        key: asked.recorded.tags[key] for key in ("pneumo.engine", "pneumo.algorithm") if key in asked.recorded.tags
    }
    return shared | {
        "pneumo.version": __version__,
        "pneumo.trial": str(run.number),
        "pneumo.run": run.run_id,
        "pneumo.model": model,
        "pneumo.against": against.said,
        "pneumo.data": source.kind,
        "pneumo.data.test": source.test_digest,
    }


def _params(experiment: Experiment, decided: Decision, alias: str) -> dict[str, Any]:
    spec = experiment.promote
    return {
        "alias": alias,
        "threshold_rule": spec.threshold,
        "threshold": repr(decided.threshold),
        "calibration": spec.calibration,
        "temperature": repr(decided.temperature),
        "gate": spec.gate,
        "floors": json.dumps(spec.floors),
    }


def _decision_key(run: TrialRun, decided: Decision, source: Source) -> str:
    """Tells a network with its operating point, judged on these test pictures."""
    return _hash([run.run_id, asdict(decided), source.test_digest])


def _key(
    run: TrialRun, decided: Decision, against: Reference, experiment: Experiment, model: str, source: Source
) -> str:
    """Tells a promotion: the same key is the same question, which is not put to the test pictures twice."""
    spec = experiment.promote
    return _hash([_decision_key(run, decided, source), against.key, spec.gate, sorted(spec.floors.items()), model])


def _hash(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


def _figure_tag(interval: Interval) -> str:
    from pneumo.evidence.model_card import format_interval

    value, between = format_interval(interval)
    return f"{value} ({between})"


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
