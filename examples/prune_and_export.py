"""Build a network, measure it, prune it into a budget, export it: `python examples/prune_and_export.py [TARGET]`.

Without data nothing is trained, and the weights' magnitude decides which channels are cut. With data, also give
`Pruner` a `tuning=FineTuning(dataset=..., recipe=...)`. `nas prune` does all of this, and certifies the result.
"""

import sys
from pathlib import Path

import torch

import space
from nas.latency import Meter, parse_target
from nas.latency.budget import Budget
from nas.prune.judge import Judge
from nas.prune.plan import PruningPlan
from nas.prune.pruner import Pruner
from nas.runs.checked_export import export_checked

SIZE, CLASSES = (180, 240), 11

target = parse_target(sys.argv[1] if len(sys.argv) > 1 else "onnxruntime@cpu:1")
architecture = space.load("ndnet45-ende")  # or a YAML file
network = architecture.build(CLASSES)  # an nn.Module; load your weights into it

with Meter(target, SIZE, CLASSES) as meter:
    whole = meter.measure(architecture)
    print(f"whole:  {whole}, {space.parameters(architecture, CLASSES):,} parameters")
    budget = Budget(milliseconds=0.7 * whole.p50_milliseconds)
    pruner = Pruner(judge=Judge(meter, SIZE, CLASSES), budget=budget, plan=PruningPlan(epochs=0, steps=1))
    pruned = pruner.prune(network)
print(f"pruned: {pruned.after}, {space.parameters(pruned.network.architecture, CLASSES):,} parameters")

Path("pruned.yaml").write_text(pruned.network.architecture.to_yaml())  # `space.load("pruned.yaml")` rebuilds it
check = export_checked(pruned.network, Path("pruned.onnx"), torch.randn(1, 3, *SIZE), labels=True)
print(f"pruned.onnx against PyTorch: {check}")
