"""Random networks and their drawing; see ``networks.py``."""

from __future__ import annotations

from .attention import Attention, EncoderLayer, MultiheadAttention
from .blocks import Branches, Mixer, Mlp, Residual, ToTokens
from .folding import Folded, Prompt, Windows
from .joins import (
    Broadcast,
    Concatenation,
    Matching,
    Meeting,
    Mixture,
    Modulated,
    Outer,
    Projected,
)
from .layers import Convolution, Embedding, Linear, Norm, Scale
from .movement import Move
from .networks import Flat, Model, Network, Node, networks
from .pointwise import Activation, Pool, Reduction, Statistic, Surviving, Upsample, set_survivors
from .series import Recurrent
from .values import Value

__all__ = [
    "Activation", "Attention", "Branches", "Broadcast", "Concatenation", "Convolution", "Embedding",
    "EncoderLayer", "Flat", "Folded", "Linear", "Matching", "Meeting", "Mixer", "Mixture", "Mlp",
    "Model", "Modulated", "Move", "MultiheadAttention", "Network", "Node", "Norm", "Outer", "Pool",
    "Projected", "Prompt", "Recurrent", "Reduction", "Residual", "Scale", "Statistic", "Surviving",
    "ToTokens", "Upsample", "Value", "Windows", "networks", "set_survivors",
]  # fmt: skip
