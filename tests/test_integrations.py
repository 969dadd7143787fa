"""Callbacks in the loops of other libraries, for which these have to be installed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import secateur as sc
from secateur.integrations.huggingface import trainer_callback
from secateur.integrations.lightning import lightning_callback
from training_cases import assert_equal, blobs, small_net

IMAGES = blobs(4).tensors[0]
RECIPE = {"during": {"method": "gradual", "zeros": 0.7, "every": 2}}
RIGL = {"during": {"method": "rigl", "zeros": 0.7, "every": 2}}


class Named(nn.Module):
    """A net as transformers call it: keywords in, loss and logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()
        self.net[3].p = 0.0

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> dict:
        logits = self.net(images)
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits} if loss is not None else {"logits": logits}


class Rows(torch.utils.data.Dataset):
    def __init__(self, number: int = 64) -> None:
        self.tensors = blobs(number).tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"images": self.tensors[0][index], "labels": self.tensors[1][index]}


def by_hand(model: nn.Module, recipe: dict, updates: int, batches: list, epochs: int) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    told = {"updates": updates, "epochs": epochs, **recipe}
    pruner = sc.Pruner(model, told, {"images": IMAGES}, optimizer)
    for images, labels in batches:
        model.train()
        optimizer.zero_grad()
        model(images=images, labels=labels)["loss"].backward()
        optimizer.step()
        pruner.step()
    return pruner.finish()


def zeros_of(model: nn.Module) -> int:
    return sum(int((p == 0).sum()) for p in model.parameters() if p.dim() > 1)


@pytest.mark.parametrize("recipe", [RECIPE, RIGL], ids=["gradual", "rigl"])
def test_the_trainer_of_transformers_prunes_and_resumes(tmp_path, torchvision, recipe):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    def trained(folder, steps_a_save: int, resume: bool = False):
        arguments = transformers.TrainingArguments(
            output_dir=str(folder), max_steps=8, per_device_train_batch_size=16, learning_rate=0.05,
            lr_scheduler_type="constant", optim="sgd", save_steps=steps_a_save, report_to=[],
            use_cpu=True, disable_tqdm=True, seed=0, max_grad_norm=0.0, logging_steps=1000,
        )  # fmt: skip
        callback = trainer_callback(recipe, {"images": IMAGES})
        trainer = transformers.Trainer(
            model=Named(), args=arguments, train_dataset=Rows(), callbacks=[callback]
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume or None)
        return callback

    callback = trained(tmp_path, 4)
    assert callback.pruner.update == 8
    masks = callback.pruner.masks
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(0.7 * 864)
    parameters = dict(callback.model.named_parameters())
    assert all(not parameters[name][~mask].any() for name, mask in masks.items())
    for path in (tmp_path / "checkpoint-8").iterdir():
        path.unlink()  # as if it had been stopped after the first checkpoint
    (tmp_path / "checkpoint-8").rmdir()
    again = trained(tmp_path, 4, resume=True)
    assert_equal(callback.model, again.model)


def test_the_callback_of_transformers_refuses_what_it_cannot_do(torchvision):
    transformers = pytest.importorskip("transformers")

    class Arguments:
        load_best_model_at_end = True

    callback = trainer_callback(RECIPE, {"images": IMAGES})
    assert isinstance(callback, transformers.TrainerCallback)
    with pytest.raises(sc.InputError, match="load_best_model_at_end"):
        callback.on_train_begin(Arguments(), None, None)


@pytest.mark.parametrize("recipe", [RECIPE, RIGL], ids=["gradual", "rigl"])
def test_lightning_prunes_as_a_loop_by_hand(tmp_path, torchvision, recipe):
    lightning = pytest.importorskip("lightning")

    class Lit(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Named()

        def training_step(self, batch, number):
            return self.inner(images=batch[0], labels=batch[1])["loss"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05)

    loader = DataLoader(TensorDataset(*blobs(64).tensors), batch_size=16)

    def trained(checkpoint: str | None = None):
        saving = lightning.pytorch.callbacks.ModelCheckpoint(
            str(tmp_path), filename="{epoch}", save_top_k=-1
        )  # fmt: skip
        told = {"updates": 8, "epochs": 2, **recipe}
        callback = lightning_callback(told, {"images": IMAGES}, part="inner")
        trainer = lightning.Trainer(
            max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[callback, saving],
            default_root_dir=str(tmp_path),
        )  # fmt: skip
        trainer.fit(Lit(), loader, ckpt_path=checkpoint)
        return callback

    callback = trained()
    expected = by_hand(Named(), recipe, 8, list(loader) * 2, 2)
    assert_equal(callback.model, expected)
    assert zeros_of(expected) >= round(0.7 * 864)
    again = trained(str(tmp_path / "epoch=0.ckpt"))
    assert again.pruner.update == 8
    assert_equal(again.model, expected)
