"""``make gpu``: 2:4 masks in PyTorch's semi-structured format, where there is an NVIDIA GPU.

Two linear layers are cut to 2:4, converted, and compared with the masked ones in half precision;
the time of both is printed. Without a GPU it says so and exits with 2.
"""

from __future__ import annotations

import copy
import sys

import torch
from torch import nn

import secateur as sc
from secateur.masking.semi_structured import follows, to_semi_structured

WIDTH, SAMPLES, TOLERANCE = 4096, 4096, 5e-3  # of the largest answer; half has 11 bits


def main() -> int:
    """0 where the answers agree, 1 where they do not, 2 without a GPU."""
    if not torch.cuda.is_available():
        print("there is no NVIDIA GPU here, or PyTorch is a CPU build; nothing was checked")
        return 2
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1024))
    structure = sc.trace(model, torch.randn(2, WIDTH))
    sc.apply_masks(model, sc.element_masks(model, structure, "l1", pattern="2:4").masks)
    model = model.cuda().half().eval()
    sparse = copy.deepcopy(model)
    found = to_semi_structured(sparse)
    inputs = torch.randn(SAMPLES, WIDTH, device="cuda", dtype=torch.half)
    with torch.no_grad():
        wanted, given = model(inputs), sparse(inputs)
        times = [_milliseconds(lambda m=m: m(inputs)) for m in (model, sparse)]
    error = float((wanted - given).abs().max() / wanted.abs().max())
    holds = all(follows(model.get_parameter(name), 2, 4) for name in found.converted)
    print(f"{torch.cuda.get_device_name()}: {', '.join(found.converted)} converted")
    print(f"largest difference {error:.2e} of the largest answer")
    print(f"dense {times[0]:.3f} ms, semi-structured {times[1]:.3f} ms for {SAMPLES} samples")
    return 0 if holds and len(found.converted) == 2 and error <= TOLERANCE else 1


def _milliseconds(run: object, repeats: int = 30) -> float:
    """Median of single runs."""
    times = []
    for _ in range(repeats + 5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()  # type: ignore[operator]
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times[5:])[repeats // 2]


if __name__ == "__main__":
    sys.exit(main())
