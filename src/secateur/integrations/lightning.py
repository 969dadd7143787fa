"""Pruning in ``lightning.Trainer``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur.errors import InputError
from secateur.integrations._starting import begun


def lightning_callback(recipe: Mapping[str, Any], example_inputs: Any, part: str = "") -> Any:
    """A Lightning ``Callback`` that prunes: ``Trainer(callbacks=[lightning_callback(...)])``.

    recipe: as of ``secateur.Pruner``; ``updates`` and ``epochs`` are the trainer's where they are
    left out. part: dotted path of the module to prune in the LightningModule, whose
    ``training_step`` must call that module; the LightningModule itself without it. After the
    training ``callback.model`` is the pruned module. Checkpoints hold the pruner's state.
    Errors: InputError without lightning, for several optimizers, and for several cuts.
    """
    try:
        from lightning.pytorch import Callback  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"the callback is for lightning, which is not here ({error}); pip install lightning"
        ) from error

    class PruningCallback(Callback):
        """Prunes while Lightning trains."""

        def __init__(self) -> None:
            self.pruner: Any = None
            self.model: Any = None
            self._kept: dict[str, Any] | None = None
            self._done = 0

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            if len(trainer.optimizers) != 1:
                raise InputError(
                    f"the training has {len(trainer.optimizers)} optimizers, and pruning knows "
                    "one; prune in a loop of your own with secateur.Pruner"
                )
            updates = int(trainer.estimated_stepping_batches)
            told = {"updates": updates, "epochs": min(updates, trainer.max_epochs or 1), **recipe}
            module = pl_module.get_submodule(part) if part else pl_module
            self.pruner = begun(
                module, told, example_inputs, trainer.optimizers[0], self._kept, False
            )  # fmt: skip
            self._done = trainer.global_step

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            self.pruner.before_step()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
            if trainer.global_step > self._done:
                self._done = trainer.global_step
                self.pruner.step()

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            self.model = self.pruner.finish()

        def state_dict(self) -> dict[str, Any]:
            return {} if self.pruner is None else self.pruner.state_dict()

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self._kept = state_dict or None

    return PruningCallback()
