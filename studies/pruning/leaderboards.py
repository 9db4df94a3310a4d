"""What the matrix left, measured again: each network's cuts beside the whole network, in turns, under one protocol.

    python studies/pruning/leaderboards.py --runs runs/pruning --out studies/pruning/leaderboard

collects the architectures of the runs, gives those of each network and seed to one `nas measure`, prints what came out
(latency as a share of the whole network's, and mIoU, by method and fraction; brackets hold what is flagged), then a
table for each fraction, and draws the networks. Without `--runs` those that are in `--out` already are measured: on
another device, give it a copy of that folder. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from nas.terminal import table

RESULTS = Path(__file__).parent / "results.csv"
WITHIN = 0.02
COLOURS = {
    "ours": "#1f4e8c", "flops": "#c1661c", "taylor": "#3b8a4f", "global": "#8a5aa8", "uniform": "#999999",
    "width": "#b03a48",
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One cut: by which method, to which fraction, what it takes now, and what it scored."""

    method: str
    fraction: float
    milliseconds: float
    share: float
    miou: float
    flagged: bool

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        share = f"({self.share:.1%})" if self.flagged else f"{self.share:.1%}"
        return f"{self.fraction:.0%} {self.method}", f"{self.milliseconds:.3f}", share, f"{100 * self.miou:.1f}"


def main() -> None:
    """Collect, measure what was not, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="of matrix.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", default="120x160")
    parser.add_argument("--target", default="onnxruntime@cpu:1")
    options = parser.parse_args()
    with RESULTS.open() as lines:
        results = list(csv.DictReader(lines))
    if options.runs:
        collect(results, options.runs, options.out)
    boards = {}
    for folder in sorted(path for path in options.out.iterdir() if path.is_dir()):
        if set(latencies_of(folder)) != {whole_of(folder), *cuts_of(folder)}:
            measure(folder, options.target, options.size)
        boards[folder.name] = board(folder, results)
        rows = [one.cells for one in sorted(boards[folder.name], key=lambda one: -one.share)]
        print(f"\n{folder.name}\n\n{table(rows, ('cut', 'ms', 'of the whole', 'mIoU (%)'))}", flush=True)
    for fraction in sorted({one.fraction for rows in boards.values() for one in rows[1:]}, reverse=True):
        print(f"\n{fraction:.0%}\n\n{compared(by_network(boards), fraction)}")
    draw(options.out / "pruning.png", by_network(boards))


def collect(results: Sequence[Mapping[str, str]], runs: Path, out: Path) -> None:
    """Copy the architectures: a folder for each network and seed, a file for each cut."""
    for row in results:
        if not row["miou"]:  # not reached
            continue
        (out / folder_of(row)).mkdir(parents=True, exist_ok=True)
        described = runs / folder_of(row) / cut_of(row) / "architecture.yaml"
        shutil.copyfile(described, out / folder_of(row) / f"{cut_of(row)}.yaml")


def measure(folder: Path, target: str, size: str) -> None:
    """The whole network and its cuts."""
    words = ["--target", target, "--input", size, "--within", f"{WITHIN:.0%}", "--out", "."]
    subprocess.run(
        [sys.executable, "-m", "nas.cli", "measure", whole_of(folder), *cuts_of(folder), *words], check=True, cwd=folder
    )


def board(folder: Path, results: Sequence[Mapping[str, str]]) -> list[Measured]:
    """One network's cuts, and the whole."""
    latencies = latencies_of(folder)
    whole = latencies.pop(whole_of(folder))
    scored = {cut_of(row): row for row in results if folder_of(row) == folder.name}
    before = next(iter(scored.values()))["miou_before"]
    rows = [Measured("whole", 1.0, float(whole["p50_milliseconds"]), 1.0, float(before), bool(whole["flagged"]))]
    for file, row in latencies.items():
        name = file.removesuffix(".yaml")
        fraction, _, method = name.partition("-")
        milliseconds = float(row["p50_milliseconds"])
        share, miou = milliseconds / rows[0].milliseconds, float(scored[name]["miou"])
        rows.append(Measured(method, float(fraction), milliseconds, share, miou, bool(row["flagged"])))
    return rows


def by_network(boards: Mapping[str, list[Measured]]) -> dict[str, list[list[Measured]]]:
    """The boards of all seeds of each network."""
    found: dict[str, list[list[Measured]]] = {}
    for name, rows in boards.items():
        found.setdefault(name.rpartition("-")[0], []).append(rows)
    return found


def compared(networks: Mapping[str, Sequence[Sequence[Measured]]], fraction: float) -> str:
    """Markdown: a line for each method, a column for each network, in it mIoU of each seed, and each share of the whole
    network's latency, with a star where it is over.
    """

    def cell(boards: Sequence[Sequence[Measured]], method: str) -> str:
        found = [one for rows in boards for one in rows if (one.method, one.fraction) == (method, fraction)]
        shares = [f"{one.share:.0%}{'*' * (one.share > (1 + WITHIN) * fraction)}" for one in found]
        return f"{', '.join(f'{100 * one.miou:.1f}' for one in found)} ({', '.join(shares)})" if found else ""

    wholes = [", ".join(f"{100 * rows[0].miou:.1f}" for rows in boards) for boards in networks.values()]
    heads = [f"{name}, whole {whole} %" for name, whole in zip(networks, wholes, strict=True)]
    lines = [["method", *heads], ["---"] * (1 + len(heads))]
    lines += [[method, *(cell(boards, method) for boards in networks.values())] for method in COLOURS]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(path: Path, networks: Mapping[str, Sequence[Sequence[Measured]]]) -> None:
    """A picture (PNG): a panel for each network, mIoU over the share of its latency, a line for each method, and for
    each further seed its points.
    """
    figure = Figure(figsize=(10, 7.5), layout="constrained", dpi=110)
    panels = figure.subplots(-(-len(networks) // 2), 2, squeeze=False).flat
    for axes, (name, boards) in zip(panels, networks.items(), strict=False):
        first = boards[0]
        axes.axhline(100 * first[0].miou, color="#888888", linewidth=1, linestyle=":", label="the whole network")
        for method, color in COLOURS.items():
            bold = 2.2 if method == "ours" else 1.2
            style = {"color": color, "marker": "o", "markersize": 2 + 2 * bold}
            axes.plot(*points(first, method), linewidth=bold, label=method, **style)
            for rows in boards[1:]:
                axes.plot(*points(rows, method), linewidth=0, markerfacecolor="none", **style)
        axes.set_title(f"{name}, {first[0].milliseconds:.3g} ms", fontsize=10)
        axes.set(xlabel="measured latency, % of the whole network's", ylabel="mIoU, %", xlim=(15, 85))
        scores = [100 * one.miou for rows in boards for one in rows]
        axes.set_ylim(min(scores) - 3, max(scores) + 3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)
    figure.savefig(path)


def points(rows: Sequence[Measured], method: str) -> tuple[list[float], list[float]]:
    """Shares of the latency and mIoU, both in per cent, of a method's cuts."""
    cuts = sorted((one for one in rows if one.method == method), key=lambda one: one.share)
    return [100 * one.share for one in cuts], [100 * one.miou for one in cuts]


def latencies_of(folder: Path) -> dict[str, dict[str, str]]:
    """What was measured, by the names that it was given."""
    file = folder / "latency.csv"
    if not file.is_file():
        return {}
    with file.open() as lines:
        return {row["network"]: row for row in csv.DictReader(lines)}


def cuts_of(folder: Path) -> list[str]:
    """The files of the architectures."""
    return sorted(path.name for path in folder.glob("*.yaml"))


def whole_of(folder: Path) -> str:
    """The network that a folder's cuts are of."""
    return folder.name.rpartition("-")[0]


def folder_of(row: Mapping[str, str]) -> str:
    """The folder of a network and seed, of a row of `results.csv`."""
    return f"{row['network']}-{row['seed']}"


def cut_of(row: Mapping[str, str]) -> str:
    """What a row's cut is called in it."""
    return f"{float(row['fraction'])}-{row['method']}"


if __name__ == "__main__":
    main()
