"""What stays the same during one promotion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pneumo.spec.experiment import Experiment

if TYPE_CHECKING:
    from pneumo.data.pictures import Source
    from pneumo.tracking.promotions import PromotionRequest
    from pneumo.tracking.store import Store


@dataclass(frozen=True)
class PromotionContext:
    """What a promotion works on and where its result goes.

    Attributes:
        store: The tracking store of the study and of the registry.
        request: The study, and one of its runs if the command line names a run.
        experiment: The study's experiment, with the settings of the command line.
        source: The study's pictures. The test set is still sealed.
        model: Name of the registered model that gets a new version.
        alias: Alias that the version gets if it passes the gate.
        force_reason: Why the version gets the alias even if the gate refuses it; None without `--force`.
    """

    store: Store
    request: PromotionRequest
    experiment: Experiment
    source: Source
    model: str
    alias: str
    force_reason: str | None = None

    @property
    def study(self) -> str:
        """Name of the study."""
        return self.request.study

    @property
    def phantom(self) -> bool:
        """Whether the pictures are generated phantoms."""
        return self.source.kind == "phantom"

    @property
    def class_names(self) -> str:
        """The two classes as text, which the registry stores: `NORMAL and PNEUMONIA`."""
        return " and ".join(self.source.classes)
