"""Two realistic metrics.json documents: a residual net of 20 layers, a transformer of 50."""

from __future__ import annotations

from typing import Any

HOSTILE = "<script>alert(1)</script>"


def latency(median: float) -> dict[str, Any]:
    """A timing in ONNX Runtime with a spread of a few per cent."""
    return {
        "runtime": "onnxruntime",
        "median": median,
        "low": median * 0.975,
        "high": median * 1.043,
        "batch": 1,
        "threads": 2,
    }


def convolutional() -> dict[str, Any]:
    """A ResNet-18 on CIFAR-10: everything measured, the target reached."""
    layers, groups = _residual_layers()
    return {
        "schema": "secateur.metrics/1",
        "name": "resnet18-cifar10",
        "created": "2025-03-04T15:09:26+00:00",
        "command": "secateur run timm:resnet18 --data cifar10 --target flops=0.5x --seed 0",
        "model": "timm:resnet18",
        "data": "cifar10",
        "before": {
            "params": 11689512,
            "flops": 3628146688,
            "bytes": 46807040,
            "peak_memory": 71303168,
            "latency": latency(0.0231),
            "metric": {"accuracy": 0.9721, "top5_accuracy": 0.9993},
            "train_metric": {"accuracy": 0.9987},
            "train_step": 0.182,
        },
        "after": {
            "params": 5183420,
            "flops": 1810445197,
            "bytes": 20791120,
            "peak_memory": 43122688,
            "latency": latency(0.01426),
            "metric": {"accuracy": 0.9694, "top5_accuracy": 0.9991},
            "train_metric": {"accuracy": 0.9911},
            "train_step": 0.117,
        },
        "speedup": {"median": 1.62, "low": 1.55, "high": 1.69},
        "metric": "accuracy",
        "higher_is_better": True,
        "verification": {
            "ok": True, "error": 3.1e-15, "of_effect": 2.2e-14, "effect": 0.412, "exact": True
        },
        "parity": {"onnx": {"max_abs": 4.1e-6, "relative": 6.3e-7}},
        "surgery": "module",
        "notes": ["Batch normalisation was recalibrated on 2000 training images."],
        "groups": groups,
        "layers": layers,
        "frozen": [
            {
                "tensor": "conv1.weight", "dim": 1, "indices": 3, "op": "aten.conv2d.default",
                "source": "resnet.py:268: x = self.conv1(x)",
                "reason": "it meets an input, an output or another index that cannot leave",
            },
            *(
                {
                    "tensor": tensor, "dim": 0, "indices": 10, "op": "output", "source": "",
                    "reason": "it is an output of the model",
                }
                for tensor in ("fc.weight", "fc.bias")
            ),
        ],
        "timeline": _iterative_timeline(),
        "choice": _choice(),
        "uncounted": [],
        "cost": {
            "trace": 4.2, "score": 31.0, "apply": 0.84, "verify": 6.1, "recalibrate": 12.5,
            "finetune": 1490.0, "export": 8.8, "total": 1561.3,
        },
        "environment": {
            "python": "3.11.9", "torch": "2.9.0", "platform": "Linux-6.1-x86_64",
            "cpu": "AMD EPYC 7B13", "threads": 2, "device": "cpu",
            "packages": {"onnxruntime": "1.22.0", "numpy": "2.2.1"},
        },
        "recipe": {
            "model": "timm:resnet18",
            "data": {"source": "cifar10", "val_share": 0.1},
            "target": {"flops": "0.5x"},
            "prune": {"criterion": "taylor", "policy": "global", "steps": 3},
            "finetune": {"epochs": 12, "rate": 0.01, "schedule": "cosine"},
            "seed": 0,
        },
        "target": {"flops": "0.5x"},
        "reached": True,
        "deployment": deployment(),
    }  # fmt: skip


def deployment() -> dict[str, Any]:
    """What ``secateur advise`` found: ways to deploy, one of which could not be tried."""
    ways = [
        way("dense", "onnxruntime", "f32", 0.0231, 0.972, 46807040),
        way("dense", "openvino", "bf16", 0.0212, 0.9715, 46807040),
        way("dense", "onnxruntime", "int8", 0.0119, 0.9312, 11901760, fits=False),
        way("pruned", "onnxruntime", "f32", 0.01426, 0.9694, 20791120),
        way("pruned", "onnxruntime", "int8", 0.0081, 0.9662, 5297780),
        {**way("pruned", "openvino", "int8", 0.0, 0.0, 0, fits=False), "value": None,
         "error": "OpenVINO cannot convert this model: no operator Frob"},
    ]  # fmt: skip
    return {
        "metric": "accuracy", "allowed_drop": 0.01, "ways": ways, "speedup": [2.85, 2.7, 2.99],
        "advice": {"model": "pruned", "runtime": "onnxruntime", "precision": "int8"},
        "sentence": "the pruned model in onnxruntime with int8 is 2.85 times as fast.",
    }  # fmt: skip


def way(
    model: str, runtime: str, precision: str, seconds: float, value: float, size: int,
    fits: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """One way to deploy."""
    speed = 0.0231 / seconds if seconds else 0.0
    return {
        "model": model, "runtime": runtime, "precision": precision, "bytes": size,
        "seconds": seconds, "speedup": [speed, speed * 0.95, speed * 1.05], "value": value,
        "error": "", "drop": 0.972 - value, "fits": fits,
    }  # fmt: skip


def transformer() -> dict[str, Any]:
    """A ViT of 50 layers, not faster, adapted, and with all that may be null left null."""
    layers: list[dict[str, Any]] = [_layer("patch_embed.proj", (192, 3), (192, 3), 256)]
    groups = [{"name": "patch_embed.proj", "before": 192, "after": 192, "exact": False}]
    frozen: list[dict[str, Any]] = []
    for block in range(12):
        stem, hidden, heads = f"blocks.{block}", 768 - 48 * (block % 7), 3 - (block % 3 == 2)
        layers += [
            _layer(f"{stem}.attn.qkv", (576, 192), (192 * heads, 192)),
            _layer(f"{stem}.attn.proj", (192, 192), (192, 64 * heads)),
            _layer(f"{stem}.mlp.fc1", (768, 192), (hidden, 192)),
            _layer(f"{stem}.mlp.fc2", (192, 768), (192, hidden)),
        ]
        groups += [
            {"name": f"{stem}.attn.qkv/192", "before": 3, "after": heads, "exact": True},
            {"name": f"{stem}.mlp.fc1", "before": 768, "after": hidden, "exact": True},
        ]
        frozen += [
            {
                "tensor": f"{stem}.{norm}.{part}", "dim": 0, "indices": 192,
                "op": "aten.layer_norm.default",
                "source": "vision_transformer.py:165: x = x + self.attn(self.norm1(x))",
                "reason": "the budget asked to leave the residual stream whole",
            }
            for norm in ("norm1", "norm2") for part in ("weight", "bias")
        ]  # fmt: skip
    layers.append(_layer("head", (1000, 192), (1000, 192)))
    frozen.append(
        {
            "tensor": "pos_embed", "dim": 1, "indices": 197, "op": "aten.add.Tensor",
            "source": "vision_transformer.py:156: x = x + self.pos_embed",
            "reason": "it meets an input, an output or another index that cannot leave",
        }
    )  # fmt: skip
    nothing = {"peak_memory": None, "train_metric": None, "train_step": None}
    return {
        "schema": "secateur.metrics/1",
        "name": "vit-tiny",
        "created": "2025-03-05T08:00:00+00:00",
        "command": "secateur run timm:vit_tiny_patch16_224 --target latency=0.8x",
        "model": "timm:vit_tiny_patch16_224",
        "data": None,
        "before": {
            "params": 5717416, "flops": 2507833344, "bytes": 22901332, "latency": latency(0.0412),
            "metric": {"loss": 1.0421}, **nothing,
        },
        "after": {
            "params": 4608616, "flops": 2071195648, "bytes": 18466132, "latency": latency(0.0421),
            "metric": {"loss": 1.1935}, **nothing,
        },
        "speedup": {"median": 0.978, "low": 0.951, "high": 1.013},
        "metric": "loss",
        "higher_is_better": False,
        "verification": {
            "ok": True, "error": 8.8e-15, "of_effect": 1.2e-13, "effect": 0.081, "exact": False
        },
        "parity": {},
        "surgery": "graph",
        "notes": [],
        "groups": groups,
        "layers": layers,
        "frozen": frozen,
        "timeline": [
            _step("dense", "dense", 0.0, 21.0, 1.0421, None, 2507833344, 5717416),
            _step("prune 1", "prune", 21.0, 3.5, 1.1935, None, 2071195648, 4608616),
            _step("export", "export", 24.5, 9.0, None, None, 2071195648, 4608616),
        ],
        "uncounted": ["aten.softmax.int", "aten.gelu.default"],
        "cost": {
            "trace": 3.1, "score": 0.4, "apply": 0.6, "verify": 5.2, "recalibrate": None,
            "finetune": None, "export": 9.0, "total": 39.9,
        },
        "environment": {"python": "3.12.4", "torch": "2.9.0", "device": "cpu", "gpu": None},
        "recipe": {"model": "timm:vit_tiny_patch16_224", "target": {"latency": "0.8x"}},
        "target": {"latency": "0.8x"},
        "reached": False,
    }  # fmt: skip


def bare() -> dict[str, Any]:
    """The least that the schema allows: everything optional is null."""
    side = {
        "params": 1000, "flops": 4000, "bytes": 5000, "peak_memory": None, "latency": None,
        "metric": None, "train_metric": None, "train_step": None,
    }  # fmt: skip
    return {
        "schema": "secateur.metrics/1", "name": "bare", "created": None, "command": None,
        "model": "net.py:Net", "data": None, "before": dict(side), "after": dict(side),
        "speedup": None, "metric": None, "higher_is_better": None, "verification": None,
        "parity": None, "surgery": None, "notes": None, "groups": None, "layers": None,
        "frozen": None, "timeline": None, "choice": None, "uncounted": None, "cost": None,
        "environment": None,
        "recipe": None, "target": None, "reached": None,
    }  # fmt: skip


def hostile() -> dict[str, Any]:
    """The residual net after somebody wrote markup into every text there is."""
    document = _poisoned(convolutional())
    document["schema"], document["metric"] = "secateur.metrics/1", HOSTILE
    for side in ("before", "after"):
        document[side]["metric"] = {HOSTILE: 0.9}
        document[side]["train_metric"] = {HOSTILE: 0.95}
    document["notes"] = ['"><img src=x onerror=alert(1)>', "--><!--", "</style>", "\x00\ud800"]
    document["target"] = {HOSTILE: "]]>"}
    document["environment"] = {HOSTILE: {HOSTILE: [HOSTILE, None]}}
    return document


def _poisoned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _poisoned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_poisoned(inner) for inner in value]
    return f"{HOSTILE}{value}" if isinstance(value, str) else value


def _layer(
    name: str, before: tuple[int, int], after: tuple[int, int], taps: int = 1
) -> dict[str, Any]:
    counts = [sizes[0] * sizes[1] * taps for sizes in (before, after)]
    return {"name": name, "before": list(before), "after": list(after), "params": counts}


def _residual_layers() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    stages, inner = (64, 128, 256, 512), (60, 50, 96, 81, 142, 118, 130, 61)
    streams = (64, 118, 201, 420)
    layers = [_layer("conv1", (64, 3), (64, 3), 49)]
    groups = [{"name": "conv1", "before": 64, "after": 64, "exact": True}]
    for stage, width in enumerate(stages):
        for block in range(2):
            stem = f"layer{stage + 1}.{block}"
            source = max(0, stage - 1) if block == 0 else stage
            kept = inner[2 * stage + block]
            reads = (stages[source], streams[source])
            layers += [
                _layer(f"{stem}.conv1", (width, reads[0]), (kept, reads[1]), 9),
                _layer(f"{stem}.conv2", (width, width), (streams[stage], kept), 9),
            ]
            groups.append({"name": f"{stem}.conv1", "before": width, "after": kept, "exact": True})
            if block == 0 and stage:
                shortcut = f"{stem}.downsample.0"
                layers.append(_layer(shortcut, (width, reads[0]), (streams[stage], reads[1])))
                groups.append(
                    {"name": shortcut, "before": width, "after": streams[stage], "exact": True}
                )
    layers.append(_layer("fc", (10, 512), (10, 420)))
    return layers, groups


def _step(
    step: str, kind: str, began: float, took: float, metric: float | None, loss: float | None,
    flops: int, params: int,
) -> dict[str, Any]:  # fmt: skip
    return {
        "step": step, "kind": kind, "at": began + took, "seconds": took,
        "metric": metric, "loss": loss, "flops": flops, "params": params,
    }  # fmt: skip


def _choice() -> dict[str, Any]:
    """Three trials of which the third was taken, and what is said of two groups."""
    return {
        "criterion": "obs",
        "scope": "knapsack",
        "left": 0.499,
        "trials": [
            {"name": "knapsack", "loss": 0.0812, "seconds": 4.1, "widths": {}},
            {"name": "uniform", "loss": 0.0954, "seconds": 4.0, "widths": {}},
            {"name": "weights", "loss": 0.0703, "seconds": 4.2, "widths": {}},
        ],
        "taken": 2,
        "curves": [
            {"group": f"layer{i}.0.conv1", "units": 64, "removed": 32, "loss": 0.004 * i,
             "levels": [0, 16, 32, 48, 64], "losses": [0, 0.001 * i, 0.004 * i, 0.02 * i, 0.3 * i]}
            for i in (1, 2)
        ],
        "front": [{"left": 0.9, "loss": 0.001}, {"left": 0.5, "loss": 0.02},
                  {"left": 0.2, "loss": 0.3}],
        "solved": [{"layer": f"layer{i}.0.conv2", "before": 0.2 / i, "after": 0.01 / i}
                   for i in range(1, 15)],
    }  # fmt: skip


def _iterative_timeline() -> list[dict[str, Any]]:
    sizes = ((3628146688, 11689512), (2980000000, 9400000), (2390000000, 7100000))
    sizes += ((1810445197, 5183420),)
    steps = [_step("dense", "dense", 0.0, 14.0, 0.9721, None, *sizes[0])]
    now, epoch = 14.0, 0
    for number, (start, drop) in enumerate(((0.9412, 0.03), (0.9021, 0.065), (0.8312, 0.135)), 1):
        steps.append(_step(f"prune {number}", "prune", now, 14.2, start, None, *sizes[number]))
        now += 14.2
        better = start + 0.3 * drop
        steps.append(
            _step(f"recalibrate {number}", "recalibrate", now, 12.5, better, None, *sizes[number])
        )
        now += 12.5
        for inside in range(4):
            epoch += 1
            score = better + (0.7 * drop) * (1 - 0.42 ** (inside + 1))
            loss = 0.05 + 0.12 * number * 0.55**inside
            steps.append(_step(f"epoch {epoch}", "epoch", now, 124.2, score, loss, *sizes[number]))
            now += 124.2
    steps.append(_step("export", "export", now, 8.8, 0.9694, None, *sizes[3]))
    return steps
