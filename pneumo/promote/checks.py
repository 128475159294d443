"""Requests that a promotion refuses before it writes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pneumo.data.pictures import describe_patients
from pneumo.promote.context import PromotionContext
from pneumo.spec.errors import RequestError
from pneumo.spec.names import Tags

if TYPE_CHECKING:
    from pneumo.tracking.registry import Version


def check_test_pictures(context: PromotionContext) -> None:
    """Raise `RequestError` if there are no test pictures, or if they are not those that the study recorded."""
    source = context.source
    if not source.sealed:
        raise RequestError(f"{source.description}: has no test pictures; a promotion needs them")
    recorded_digest = context.request.recorded.tags.get(Tags.DATA_TEST)
    if recorded_digest not in (None, source.test_digest):
        known_now = describe_patients([*source.pictures, *source.sealed])
        known_before = context.request.recorded.tags.get(Tags.DATA_PATIENTS, "not recorded")
        raise RequestError(
            f"study {context.study}: the test pictures of {source.description} are not those of the study (recorded digest "
            f"{recorded_digest}, now {source.test_digest}: other pictures, or the patients are known in another way: before "
            f"{known_before}, now {known_now}); give the pictures of the study with "
            f"--data"
        )


def check_model_kind(context: PromotionContext) -> None:
    """Raise `RequestError` if the registered model and the study mix phantoms with X-rays."""
    from pneumo.tracking import registry

    registered_kind = registry.pictures_kind(context.store, context.model)
    if registered_kind and (registered_kind == "phantom") != context.phantom:
        raise RequestError(
            f"model {context.model}: its versions are trained on {'phantoms' if registered_kind == 'phantom' else 'X-rays'}, "
            f"this study on {'phantoms' if context.phantom else 'X-rays'}; give another name with --model"
        )


def check_classes(context: PromotionContext, champion: Version | None) -> None:
    """Raise `RequestError` if the champion distinguishes other classes: the two networks could not be compared."""
    champion_classes = champion.tags.get(Tags.CLASSES) if champion else None
    if champion and champion_classes not in (None, context.class_names):
        raise RequestError(
            f"model {champion.model}: its version {champion.number} distinguishes {champion_classes}, this study "
            f"{context.class_names}; give another name with --model"
        )
