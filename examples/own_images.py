"""A study on your own images: `python examples/own_images.py FOLDER [TARGET]`.

FOLDER holds `train/images`, `train/labels`, `val/images`, `val/labels` and `classes.txt` (docs/data.md). To end soon,
this study uses small images, imprecise latencies and a single network. `nas search` does the same with a study's YAML
file.
"""

import sys
from pathlib import Path

from nas.data import DataSpec
from nas.runs.folder import RunFolder
from nas.search.engine import search
from nas.study import SearchPlan, Study
from nas.training import Recipe

study = Study(
    data=DataSpec(name="folder", root=sys.argv[1], size=(48, 64)),
    budget="2ms",
    target=sys.argv[2] if len(sys.argv) > 2 else "onnxruntime@cpu:1",
    latency_within=0.2,
    patience_seconds=0,
    recipe=Recipe(optimizer="adamw", learning_rate=0.006, epochs=1, batch_size=4),
    space={"stages": (2,), "stage.depth": (1, 2)},  # narrows the search
    search=SearchPlan(seeds=("ndnet45-fcn32",), random_trials=0, guided_trials=0, finalists=1, finish_epochs=1),
)

if __name__ == "__main__":  # each training is a process that imports this file
    run = RunFolder.create(Path("runs/own-images"), study)
    for budget, certificate in search(run).items():  # one pair, unless the study has several budgets
        print(f"{certificate.latency} against {budget}: {certificate.verdict}")
    print(f"the network, its weights and its certificate are in {run.winner}")
