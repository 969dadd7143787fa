"""Masks: which elements of weights stay, from scores of each element.

Scores are mappings of tensor name -> float tensor of the weight's shape, higher stays; masks are
bool tensors of the same shapes, True where an element stays. Nothing here knows of models.
"""

from __future__ import annotations

from secateur.masking.cells import POOLS, Cells
from secateur.masking.choosing import SCOPES, choose_masks
from secateur.masking.neighbours import n_of_m
from secateur.masking.thresholds import Below, BelowShare, Energy, NaturalBreak, Rule, Share

__all__ = [
    "POOLS",
    "SCOPES",
    "Below",
    "BelowShare",
    "Cells",
    "Energy",
    "NaturalBreak",
    "Rule",
    "Share",
    "choose_masks",
    "n_of_m",
]
