"""The sections of a recipe that train."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from secateur.sections.base import Section


class AugmentationSection(Section):
    """All off by default."""

    flip: float = Field(default=0.0, ge=0, le=1)
    crop: int = Field(default=0, ge=0)
    scale: float = Field(default=0.0, ge=0, lt=1)
    rotate: float = Field(default=0.0, ge=0)
    jitter: float = Field(default=0.0, ge=0)
    noise: float = Field(default=0.0, ge=0)
    occlusion: float = Field(default=0.0, ge=0, le=1)


class BeforeSection(Section):
    """Single weights that are zero from before a training on, and stay zero in it.

    criterion: one that scores elements. rounds: scored anew so often, along the schedule.
    """

    criterion: str = "snip"
    zeros: float = Field(gt=0, lt=1)
    rounds: int = Field(default=1, ge=1)
    schedule: str = "iterative"
    scope: Literal["global", "local", "erk"] = "global"
    keep: list[str] = Field(default_factory=list)


class TicketSection(Section):
    """A lottery ticket: train, zero the smallest weights, go back to an epoch, and once more.

    zeros: the share at the end. rewind: the epoch that is gone back to. weights: whether weights go
    back too, or the learning rate and the order of samples alone.
    """

    zeros: float = Field(gt=0, lt=1)
    rounds: int = Field(default=3, ge=1)
    rewind: int = Field(default=1, ge=0)
    weights: bool = True
    scope: Literal["global", "local", "erk"] = "global"
    keep: list[str] = Field(default_factory=list)


class TrainingSection(Section):
    """A training: the dense one before, the short ones between steps, the last one after.

    accumulate: batches that make one update. regularise: name of a regulariser -> its settings.
    during: ``method`` and settings of what prunes while the model is trained; before: of what does
    so beforehand; ticket: of what does so by training several times. rewind: epoch of
    ``train_dense`` at which this training begins; rewind_weights: with its weights, too.
    distill_features, distill_attention: weights of these losses beside the logits; distill_at:
    modules that they read.
    """

    epochs: int = Field(default=1, ge=0)
    batch_size: int | None = Field(default=None, ge=1)
    accumulate: int = Field(default=1, ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float = Field(default=0.01, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: Literal["constant", "cosine", "onecycle", "step", "linear"] = "cosine"
    warmup: float = Field(default=0.0, ge=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    gradient_clip: float | None = Field(default=None, gt=0)
    distill: float = Field(default=0.0, ge=0, le=1)
    temperature: float = Field(default=4.0, gt=0)
    distill_features: float = Field(default=0.0, ge=0)
    distill_attention: float = Field(default=0.0, ge=0)
    distill_at: list[str] = Field(default_factory=list)
    regularise: dict[str, dict[str, Any]] = Field(default_factory=dict)
    during: dict[str, Any] | None = None
    before: BeforeSection | None = None
    ticket: TicketSection | None = None
    rewind: int | None = Field(default=None, ge=0)
    rewind_weights: bool = True
    mixed_precision: Literal["auto", "off"] = "auto"
    keep_best: bool = True
    augmentation: AugmentationSection = AugmentationSection()

    @property
    def thins(self) -> bool:
        """Whether something in it may make zeros, or choose units."""
        return bool(self.regularise or self.during or self.before or self.ticket)

    @field_validator("regularise", mode="before")
    @classmethod
    def _with_settings(cls, given: Any) -> Any:
        """``l1:`` alone is ``l1: {}``."""
        if isinstance(given, dict):
            return {name: {} if value is None else value for name, value in given.items()}
        return given

    @model_validator(mode="after")
    def _agree(self) -> TrainingSection:
        if self.during is not None and not isinstance(self.during.get("method"), str):
            raise ValueError("'during' needs a method, such as {method: rigl, zeros: 0.8}")
        chosen = [n for n in ("before", "during", "ticket") if getattr(self, n) is not None]
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)} both choose what becomes zero; give one")
        for name in ("rewind", "ticket"):
            value = getattr(self, name)
            epoch = value.rewind if isinstance(value, TicketSection) else value
            if epoch is not None and epoch >= self.epochs:
                raise ValueError(
                    f"a training of {self.epochs} epochs cannot begin at epoch {epoch}: give more "
                    "epochs, as many as the training has that it goes back to"
                )
        if self.distill_at and not (self.distill_features or self.distill_attention):
            raise ValueError(
                "distill_at names modules for distill_features or distill_attention; give one of "
                "these a weight"
            )
        return self
