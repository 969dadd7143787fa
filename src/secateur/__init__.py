"""Secateur makes neural networks smaller and faster, and proves that nothing else changed.

Names are imported when they are first used, so that ``import secateur`` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secateur.block_pruning import BlockPruned, block_prune
    from secateur.boundary import drop_features, keep_classes
    from secateur.choosing import plan
    from secateur.errors import (
        BudgetError,
        CaptureError,
        ExportError,
        InputError,
        NotExact,
        PlanError,
        PlanMismatch,
        SecateurError,
        SurgeryError,
        TrainingError,
    )
    from secateur.exporters.sparse import load_sparse
    from secateur.job.auto_compression import AutoCompression
    from secateur.job.compressing import Result, compress
    from secateur.job.strategies import SearchResult, search
    from secateur.masking.storing import apply_masks, load_masks, save_masks
    from secateur.masks import ElementMasks, element_masks
    from secateur.planning import PruningPlan
    from secateur.predicting import Latency, latency
    from secateur.pruner import Pruner
    from secateur.structure.groups import Frozen, Group, Member
    from secateur.structure.structure import Structure, trace
    from secateur.surgery.applying import apply
    from secateur.surgery.optimizers import cut_optimizer
    from secateur.surgery.storing import load, save
    from secateur.verification import Verdict, verify
    from secateur.vocabulary import keep_tokens
    from secateur.weight_pruning import prune_weights

_PLACES = {
    "secateur.errors": (
        "BudgetError", "CaptureError", "ExportError", "InputError", "NotExact", "PlanError",
        "PlanMismatch", "SecateurError", "SurgeryError", "TrainingError",
    ),
    "secateur.planning": ("PruningPlan",),
    "secateur.structure.groups": ("Frozen", "Group", "Member"),
    "secateur.structure.structure": ("Structure", "trace"),
    "secateur.block_pruning": ("BlockPruned", "block_prune"),
    "secateur.boundary": ("drop_features", "keep_classes"),
    "secateur.vocabulary": ("keep_tokens",),
    "secateur.choosing": ("plan",),
    "secateur.exporters.sparse": ("load_sparse",),
    "secateur.predicting": ("Latency", "latency"),
    "secateur.pruner": ("Pruner",),
    "secateur.job.auto_compression": ("AutoCompression",),
    "secateur.job.compressing": ("Result", "compress"),
    "secateur.job.strategies": ("SearchResult", "search"),
    "secateur.masking.storing": ("apply_masks", "load_masks", "save_masks"),
    "secateur.masks": ("ElementMasks", "element_masks"),
    "secateur.surgery.applying": ("apply",),
    "secateur.surgery.optimizers": ("cut_optimizer",),
    "secateur.surgery.storing": ("load", "save"),
    "secateur.verification": ("Verdict", "verify"),
    "secateur.weight_pruning": ("prune_weights",),
}  # fmt: skip
_HOME = {name: place for place, names in _PLACES.items() for name in names}

__all__ = [
    "AutoCompression",
    "BlockPruned",
    "BudgetError",
    "CaptureError",
    "ElementMasks",
    "ExportError",
    "Frozen",
    "Group",
    "InputError",
    "Latency",
    "Member",
    "NotExact",
    "PlanError",
    "PlanMismatch",
    "Pruner",
    "PruningPlan",
    "Result",
    "SearchResult",
    "SecateurError",
    "Structure",
    "SurgeryError",
    "TrainingError",
    "Verdict",
    "apply",
    "apply_masks",
    "block_prune",
    "compress",
    "cut_optimizer",
    "drop_features",
    "element_masks",
    "keep_classes",
    "keep_tokens",
    "latency",
    "load",
    "load_masks",
    "load_sparse",
    "plan",
    "prune_weights",
    "save",
    "save_masks",
    "search",
    "trace",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'secateur' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
