"""Masks before a training, and lottery tickets: which weights could have been left out at once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from secateur.errors import InputError
from secateur.masking.storing import apply_masks
from secateur.masks import element_masks, judge_of_elements
from secateur.protocols import ElementCriterion
from secateur.repair.sparsifying import cuttable
from secateur.schedules import share_at
from secateur.structure.copying import copied
from secateur.structure.structure import Structure
from secateur.training.epochs import Validate
from secateur.training.extensions import Method
from secateur.training.history import EpochReport, History
from secateur.training.keeping import KeepEpochs, tensors_of_epoch
from secateur.training.loop import finetune
from secateur.training.losses import Loss
from secateur.training.settings import FinetuneSettings
from secateur.training.state import put_tensors


def masks_before(
    model: nn.Module,
    structure: Structure,
    criterion: str | ElementCriterion = "snip",
    zeros: float = 0.8,
    *,
    rounds: int = 1,
    schedule: str = "iterative",
    scope: str = "global",
    keep: Collection[str] = (),
    data: Iterable[tuple[Any, Any]] | None = None,
    loss: Loss | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Masks chosen before any training: SNIP, GraSP, SynFlow and others; the model is untouched.

    In each of ``rounds`` what is left is scored anew on the masked model, and the share of zeros
    rises along the schedule to exactly ``round(zeros * n)``; what has left stays away. SNIP and
    GraSP take one round, SynFlow takes 100 on the schedule ``iterative``.
    criterion: one that scores elements. data: (inputs, targets), for those that read them.
    keep: names and globs of weights that stay whole.
    Tanaka et al., "Pruning neural networks without any data", NeurIPS 2020 (rounds); Lee et al.,
    ICLR 2019 (SNIP); Wang et al., ICLR 2020 (GraSP).
    Errors: InputError for a criterion that needs data where there is none, for names of no weight.
    """
    if rounds < 1:
        raise InputError(f"rounds is {rounds!r}; give a whole number from 1 up")
    batches = None if data is None else list(data)
    trial = copied(model)
    masks: dict[str, Tensor] = {}
    left = _kept(structure, keep)
    for number in range(1, rounds + 1):
        share = share_at(schedule, number / rounds, zeros)
        found = element_masks(
            trial, structure, _Unmasked(criterion, masks) if masks else criterion, share,
            scope=scope, keep=left, data=batches, loss=loss, seed=seed,
        )  # fmt: skip
        masks = dict(found.masks)
        apply_masks(trial, masks)
    return masks


def lottery_ticket(
    model: nn.Module,
    structure: Structure,
    train: Dataset[Any],
    settings: FinetuneSettings | None = None,
    zeros: float = 0.8,
    *,
    rounds: int = 3,
    rewind: int = 1,
    weights: bool = True,
    scope: str = "global",
    keep: Collection[str] = (),
    methods: Sequence[Method] = (),
    masks: Mapping[str, Tensor] | None = None,
    validate: Validate | None = None,
    loss: Loss | None = None,
    folder: Path | str | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    device: torch.device | str | None = None,
) -> History:
    """Train, zero the smallest weights, go back to epoch ``rewind``, and train again.

    ``model`` ends as the trained ticket, ``History.masks`` are its zeros: exactly
    ``round(zeros * n)`` after ``rounds`` rounds, each of which takes the same share of what is
    left.
    weights: whether weights and buffers go back to epoch ``rewind`` of the first training (weight
             rewinding); else the learning rate and the order of samples alone do.
    masks:   of what is zero from the start. folder: of checkpoints, with which an interrupted call
             goes on when it is made again; a temporary one without.
    Frankle and Carbin, ICLR 2019; late rewinding: Frankle et al., ICML 2020; of the learning rate:
    Renda, Frankle and Carbin, ICLR 2020.
    Errors: InputError for values out of range; as ``finetune``.
    """
    settings = settings or FinetuneSettings()
    if rounds < 1:
        raise InputError(f"rounds is {rounds!r}; give a whole number from 1 up")
    if not 0 <= rewind < settings.epochs:
        raise InputError(
            f"rewind is {rewind!r} of {settings.epochs} epochs; give a whole number from 0 to "
            "below that"
        )
    left = _kept(structure, keep)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(folder) if folder is not None else Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        keeping = KeepEpochs((rewind,), str(place))
        history = finetune(
            model, train, settings, validate=validate, loss=loss, masks=masks,
            checkpoint=place / "round-0.safetensors", methods=[*methods, keeping],
            structure=structure, on_epoch=on_epoch, device=device,
        )  # fmt: skip
        found = dict(masks or {})
        for number in range(1, rounds + 1):
            share = share_at("iterative", number / rounds, zeros)
            found = dict(
                element_masks(
                    model, structure, _Unmasked("l1", found), share, scope=scope, keep=left
                ).masks
            )
            if weights:
                put_tensors(model, tensors_of_epoch(place, rewind))
            history = finetune(
                model, train, replace(settings, begin_at=rewind), validate=validate, loss=loss,
                masks=found, checkpoint=place / f"round-{number}.safetensors", methods=methods,
                structure=structure, on_epoch=on_epoch, device=device,
            )  # fmt: skip
    return replace(history, masks=found)


class _Unmasked:
    """A criterion for which elements that left already are worth less than all others."""

    def __init__(self, criterion: str | ElementCriterion, masks: Mapping[str, Tensor]) -> None:
        self.judge = judge_of_elements(criterion)
        self.masks = masks

    @property
    def needs(self) -> frozenset[str]:
        """Those of the criterion."""
        return self.judge.needs

    def elements(self, tensor: str, statistics: Any) -> Tensor:
        """The criterion's scores; of what left below the lowest of them."""
        scores = self.judge.elements(tensor, statistics).double()
        mask = self.masks.get(tensor)
        if mask is None:
            return scores
        return scores.masked_fill(~mask.to(scores.device), -torch.finfo(torch.float64).max)


def _kept(structure: Structure, keep: Collection[str]) -> set[str]:
    known = list(cuttable(structure))
    found: set[str] = set()
    for pattern in keep:
        names = {n for n in known if fnmatch(n, pattern) or fnmatch(n, f"{pattern}.weight")}
        if not names:
            raise InputError(
                f"keep names {pattern!r}, which no weight that could be cut is called; they are "
                f"{', '.join(known)}"
            )
        found |= names
    return found
