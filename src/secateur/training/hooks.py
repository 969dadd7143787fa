"""Extensions in a loop that is not ours: hooks on the model and on its optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from secateur.training.extensions import Batch, Extension, Moment


class Hooks:
    """Calls extensions around forward passes of ``model`` and steps of ``optimizer``.

    In training mode the first pass after a step begins an update, whose weights stand until the
    next step; in eval mode a pass sees the model as it would be if the training ended now.
    moment: where the training stands.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        extensions: Sequence[Extension],
        moment: Callable[[], Moment],
        hook_optimizer: bool = True,
    ) -> None:
        self.extensions, self.moment = extensions, moment
        self.moved = False  # whether the optimizer has stepped since the last update
        self._active = self._looked_at = False
        self._handles: list[Any] = []
        if optimizer is not None and extensions:
            self._attach(model, optimizer, hook_optimizer)

    def _attach(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, hook_optimizer: bool
    ) -> None:
        # closures, which a copy of the model shares instead of copying what they hold
        def before(module: nn.Module, arguments: Any) -> None:
            if module is not model or self._active or self._looked_at:
                return
            if module.training:
                self._active = True
                for extension in self.extensions:
                    extension.before_forward(self.moment())
            else:
                self._looked_at = True
                for extension in self.extensions:
                    extension.show()

        def after(module: nn.Module, arguments: Any, outputs: Any) -> None:
            if module is model and self._looked_at:
                self._looked_at = False
                for extension in reversed(self.extensions):
                    extension.hide()

        def before_step(optimizer: Any, arguments: Any, keywords: Any) -> None:
            self.before_step()

        self._handles = [
            model.register_forward_pre_hook(before),
            model.register_forward_hook(after, always_call=True),
        ]
        if hook_optimizer:
            self._handles.append(optimizer.register_step_pre_hook(before_step))

    def before_step(self) -> None:
        """Gradients are there: those of penalties join them, then extensions see them."""
        if not self.extensions:
            return
        at = self.moment()
        with torch.enable_grad():
            penalties = [e.penalty(at, Batch(None, None, None)) for e in self.extensions]
            given = [penalty for penalty in penalties if penalty is not None]
            if given:
                torch.stack(given).sum().backward()
        for extension in reversed(self.extensions):
            extension.after_backward(at)
        self._active, self.moved = False, True

    def withdraw(self) -> None:
        """Weights of their own again, where a training pass was begun."""
        if self._active:
            for extension in reversed(self.extensions):
                extension.hide()
            self._active = False

    def detach(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
