"""What every granularity promises: cells of its own for every shape that it takes."""

from __future__ import annotations

import pytest
import torch

from secateur.errors import InputError
from secateur.masking import choose_masks

SHAPES = ((8, 6), (4, 12), (6, 4, 5), (8, 4, 3, 3), (4, 8, 1, 1), (4, 4, 2, 3, 2), (7,), ())


class GranularityTests:
    """Inherit it, and make yours."""

    def make(self):
        raise NotImplementedError

    def test_a_shape_has_cells_or_a_reason(self):
        taken = 0
        for shape in SHAPES:
            try:
                number = self.make()(shape)
            except InputError as error:
                assert str(error)
                continue
            taken += 1
            assert number.dtype == torch.int64 and tuple(number.shape) == shape
            assert int(number.min()) >= 0
            assert torch.equal(number, self.make()(shape))  # of the shape alone
        assert taken

    def test_masks_follow_the_cells(self):
        generator = torch.Generator().manual_seed(0)
        for shape in SHAPES:
            try:
                number = self.make()(shape)
            except InputError:
                continue
            scores = {"w": torch.rand(shape, generator=generator)}
            mask = choose_masks(scores, 0.5, cells=self.make())["w"]
            for cell in number.unique():
                assert mask[number == cell].unique().numel() == 1
            if shape:
                with pytest.raises(InputError):
                    choose_masks({"w": scores["w"] * float("nan")}, 0.5, cells=self.make())
