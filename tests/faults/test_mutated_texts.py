"""Whatever is in a text that the product reads, it is read or refused in words, at once; what is read is written the
same. The mutations are seeded; `-m slow` makes ten thousand of each kind.
"""

from __future__ import annotations

import ast
import math
import random
import resource
import string
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import space
from nas.data import DataSpec, load
from nas.data.fingerprint import Fingerprint
from nas.latency.budget import Budget
from nas.latency.default import DefaultTarget
from nas.latency.estimates.calibration import MeasuredNetwork
from nas.latency.estimates.shipped import SharesOfReference
from nas.latency.estimates.table import LatencyTable
from nas.latency.protocol.anchor import Anchor
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.report.agreement import Agreement
from nas.report.going import Going
from nas.report.standings import Effort, Standing, TrialSummary
from nas.report.summary import Summary
from nas.report.winners import LatencySummary, Winner
from nas.runs.beginning import Beginning
from nas.runs.certificate import Certificate
from nas.runs.data_seen import DataSeen
from nas.runs.earlier import Earlier, EarlierTrial
from nas.runs.finish_recipe import FinishRecipe, Tried
from nas.runs.folder import Order, Sources
from nas.runs.labelling import Labelling, metadata, read_labelling
from nas.runs.table import BegunWith
from nas.runs.trained import ScoreCard, load_trained
from nas.runs.trial import Epoch, Measured, Pretrained, Progress, Rung, Timed, Trial
from nas.runs.unreached import AllUnreached, Unreached
from nas.study import SearchPlan, Study
from nas.training import Recipe, Scores, Variant, load_recipe
from nas.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nas.training.form import Form
from nas.training.weights import load_weights, save_weights
from space import Architecture, UserError, strict
from space.channels import widths
from space.scale import scale_width

ROOT = Path(__file__).resolve().parents[2]
FEW, MANY = 60, 10_000
DAMAGED = 400
MOST_SECONDS = 1.0  # of this process's own time
MOST_BYTES = 500_000_000

LATENCY = Latency(
    p50_milliseconds=9.77, p90_milliseconds=10.1, p99_milliseconds=12.0, ci_low_milliseconds=9.7,
    ci_high_milliseconds=9.9, samples=40, ratio=1.954, ratio_low=1.94, ratio_high=1.98, reference_milliseconds=5.0,
    raw_p50_milliseconds=9.9, target="onnxruntime@cpu:1", height=64, width=96, scope="network and arg-max",
    set_aside=3, blocks=((9.7, 5.0), (9.8, 5.1)), flagged=("a: 'busy' # host",), environment={"cpu": "an invented one"},
)  # fmt: skip
SCORES = Scores(miou=0.5, class_iou=(0.5, None, 0.25), pixel_accuracy=0.75)
ARCHITECTURE = scale_width(space.load("ndnet29-fcn32"), 0.2)
TIMING = LatencySummary(
    precision="fp32",
    milliseconds=9.77, p50_milliseconds=9.77, ci_low_milliseconds=9.7, ci_high_milliseconds=9.9, within_budget=True,
    verdict="PASS", flagged=(),
)  # fmt: skip
CERTIFICATE = Certificate(
    architecture=ARCHITECTURE.key, certified="2020-01-01T00:00:00+00:00", version="0", budget="10ms", passed=True,
    latency=LATENCY, precision="fp32", protocol="invented", miou=0.5, pixel_accuracy=0.75,
    class_iou={"ground": 0.5, "box": None}, scored="not at all", data="folder", validation_images=3, num_classes=2,
    input_mean=(0.5, 0.5, 0.5), input_std=(0.2, 0.2, 0.2), parameters=1000, multiply_adds=10**6, onnx_images=1,
    onnx_max_abs_difference=1e-6, onnx_tolerance=1e-3, onnx_same_labels=1.0, sha256={"model.onnx": "00" * 32},
)  # fmt: skip
STANDING = Standing(
    place="winner", name="random 1", timing=TIMING, search_miou=0.4, miou=0.5, epochs=3, parameters=1000,
    multiply_adds=10**6,
)  # fmt: skip
PRETRAINED = Pretrained(layers=3, of=7, reason="the file has no stage1.block0.projection")
CANDIDATE = TrialSummary(
    number=1, name="random 1", key=ARCHITECTURE.key, origin="random", status="finished", failed="", timing=TIMING,
    parameters=1000, multiply_adds=10**6, search=(0.1, 0.4), finish=(0.5,), rungs=(1, 2), parent="",
    pretrained=PRETRAINED,
)  # fmt: skip
WINNER = Winner(
    name="random 1", number=1, key=ARCHITECTURE.key, pruned=False, timing=TIMING, miou=0.5,
    description={"Stem": "a convolution"}, genotype={"block": "nonbt", "width": 16}, certificate=CERTIFICATE,
)  # fmt: skip
TABLE = LatencyTable(
    target="torch@cpu:1", height=64, width=96, milliseconds={"conv 3x3 multiply_adds": 1e-9, "add count": 0.01},
    unit_milliseconds={"multiply_adds": 1e-9}, networks=150, seconds=3.0, error=0.08, environment={"threads": "1"},
)  # fmt: skip
KINDS: Mapping[str, Any] = {
    "architecture": space.load("swiftnet-rn18"),
    "narrowed architecture": replace(ARCHITECTURE, channels=dict(list(space.groups(ARCHITECTURE).items())[:3])),
    "study": Study(
        data=DataSpec(name="folder", root="images", size=(64, 96), train_images=4),
        budget="10ms p90",
        recipe=load_recipe("quick"),
        target="onnxruntime@cpu:1",
        space={"block": ("nonbt", "sep"), "stage.depth": (1, 2)},
        search=SearchPlan(company=("erfnet",), finish_recipes=(Variant(), Variant(ema_decay=0.9, epochs=30))),
    ),
    "recipe": load_recipe("erfnet"),
    "certificate": CERTIFICATE,
    "form of a training": Form(device="cpu", precision="fp32", layout="channels_last"),
    "where the first weights came from": Beginning(file="resnet18.pth", sha256="00" * 32),
    "budgets that were given up": AllUnreached(
        budgets=(Unreached(budget="1ms", reason="nothing is inside", searched=True, number=3, repeats=2),)
    ),
    "finish recipe of a run": FinishRecipe(
        tried=(
            Tried(recipe=Variant(), epochs=5, miou=0.4),
            Tried(recipe=Variant(learning_rate=0.003, epochs=40, ema_decay=0.9), epochs=10, miou=0.5),
            Tried(recipe=Variant(ohem_probability=0.7, deep_supervision=True), epochs=5, failed="a loss of NaN"),
            Tried(recipe=Variant(distillation=True), epochs=5, teacher="0123456789ab"),
        ),
        network=ARCHITECTURE.key,
        chosen=1,
        teachers={ARCHITECTURE.key: "0123456789ab"},
    ),
    "recipe variant": Variant(learning_rate=0.003, ohem_probability=0.7, ema_decay=0.9, epochs=4, distillation=True),
    "trial": Trial(
        number=1,
        name="random 1",
        origin="random",
        architecture=ARCHITECTURE,
        latency=LATENCY,
        feasible=True,
        budget_milliseconds=10.0,
        parameters=1000,
        multiply_adds=10**6,
        genotype={"block": "nonbt", "bias": False},
        rungs=(Rung(epochs=1, number=1, budget_milliseconds=10.0), Rung(epochs=3, number=4, budget_milliseconds=10.0)),
    ),
    "progress": Progress(
        history=tuple(Epoch(epoch=n, epochs=3, loss=1.5, seconds=2.0, scores=SCORES) for n in (1, 2)),
        pretrained=PRETRAINED,
    ),
    "latency": LATENCY,
    "score card": ScoreCard(
        architecture=ARCHITECTURE.key,
        data="folder",
        training_images=3,
        validation_images=3,
        size=(64, 96),
        parameters=1000,
        miou=0.5,
        pixel_accuracy=0.75,
        class_iou={"ground": 0.5, "box": None},
        recipe=load_recipe("quick"),
    ),
    "report": Summary(
        run="run",
        budget="10ms",
        budget_milliseconds=10.0,
        statistic="p50",
        target="onnxruntime@cpu:1",
        input_size=(64, 96),
        data="folder",
        winner=WINNER,
        leaderboard=(STANDING,),
        effort=Effort(
            random_trials=1, guided_trials=0, compared=0, epochs=1, best_random_miou=0.4, best_guided_miou=None
        ),
        agreements=(Agreement(proxy="parameters", truth="latency", points=1, tau=None),),
        trials=(CANDIDATE,),
        company=(),
        notes=("a note",),
        going=Going(trained=1, paused=0, under_way=0, waiting=0, failed=0, over_budget=0, steps=("certify",)),
    ),
    "anchor": Anchor(
        milliseconds=5.0,
        canary=0.2,
        blocks_milliseconds=(5.0, 5.1),
        blocks_canary=(0.2, 0.21),
        taken="2020-01-01",
        device={"runtime": "torch"},
        flagged=(),
    ),
    "latency table": TABLE,
    "latency table that a run began with": BegunWith(table=TABLE),
    "no latency table that a run began with": BegunWith(),
    "latency table of the package": SharesOfReference(
        height=180,
        width=240,
        of_quantity={"conv 3x3 multiply_adds": 1e-9, "add count": 0.0},
        of_unit={"multiply_adds": 1e-9},
        networks=150,
        error=0.08,
        source="an invented CPU",
    ),
    "data that a run was begun on": DataSeen(
        fingerprint=Fingerprint(
            classes=("ground", "box"),
            train_images="00" * 20,
            train_labels="11" * 20,
            validation_images="22" * 20,
            validation_labels="33" * 20,
        ),
        root_from_here="../../data",
    ),
    "order of candidates": Order(ahead=2),
    "runs that are taken over": Sources(runs=("/runs/one", "/runs/two")),
    "what was taken over": Earlier(
        trials=(
            EarlierTrial(
                run="one",
                architecture=ARCHITECTURE,
                genotype={"block": "nonbt", "bias": False},
                latency=LATENCY,
                miou=0.4,
                fidelity=0.5,
            ),
        )
    ),
    "what was timed on the way": Timed(
        measured=(Measured(architecture=ARCHITECTURE, milliseconds=9.8, disturbed=False),)
    ),
    "measured network": MeasuredNetwork(
        index=3, key=ARCHITECTURE.key, ratio=1.5, reference_milliseconds=5.0, seconds=3.0, flagged=False
    ),
    "default target": DefaultTarget(target="onnxruntime@cpu", reason="the only one ready"),
}

EVIL = (
    "", "~", "null", "-1", "0", "-0.0", "1", "2", "7", "64", "255", "4096", "4097", "1e309", "-1e309", "1e308",
    "1e-320", ".nan", ".inf", "-.inf", "9" * 300, "-" + "9" * 300, "9" * 5000, str(2**63), "1_000", "0x10",
    "0b11", "0o7", "017", "1:30", "190:20:30", "1e5", "1.0", "3.0e+0", "true", "no", "on", "[]", "{}", "''",
    '"\\0"', '"\\uD800"', "[1, 2]", "[[[]]]", "{a: 1}", "{kind: sep}", "2020-01-01", "2020-99-99",
    "2001-12-14t21:59:43.10-05:00", "!!python/object:os.system x", "!!int 3", "!!binary aGk=", "&a b", "*a",
    "<<", "=", "- -", "? a", ": b", "|", ">-", "%", "@", "`", "\t", "\x07", "\u202e", "é" * 300, "\U0001f600",
    "'", '"', "[" * 50, "{" * 50, "x" * 2000, "../../etc/passwd", "nonbt", "sep", "none", "ladder", "-5", "3.5",
    "99999999", "1" + "0" * 30,
)  # fmt: skip


def mutated(text: str, rng: random.Random) -> str:
    """The text with one to three things in it changed."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        text = rng.choice(CHANGES)(text, rng)
    return text


def another_value(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    key, colon, _ = lines[at].partition(": ")
    lines[at] = f"{key}: {rng.choice(EVIL)}" if colon or lines[at].endswith(":") else f"- {rng.choice(EVIL)}"
    return "\n".join(lines)


def another_number(text: str, rng: random.Random) -> str:
    places = [at for at, character in enumerate(text) if character.isdigit()]
    if not places:
        return text
    at = rng.choice(places)
    return text[:at] + rng.choice(("-", "0", "9", "99999", ".", "e", "e9", "1" * 40, "", "_", ":")) + text[at + 1 :]


def another_item(text: str, rng: random.Random) -> str:
    """In a list of one line."""
    places = [at for at, character in enumerate(text) if character in "[,"]
    if not places:
        return text
    at = rng.choice(places) + 1
    return text[:at] + rng.choice(EVIL) + rng.choice(("", ",")) + text[at:]


def without_a_line(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    del lines[rng.randrange(len(lines))]
    return "\n".join(lines)


def a_line_twice(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return "\n".join(lines)


def lines_swapped(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return "\n".join(lines)


def indented(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    lines[at] = lines[at].lstrip() if rng.random() < 0.5 else rng.choice((" ", "  ", "\t")) + lines[at]
    return "\n".join(lines)


def another_character(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) + 1)
    new = rng.choice((*string.printable, "\0", "\x85", "\u2028", "\ufeff", "é", "\U0010ffff"))
    return text[:at] + new + text[at + rng.choice((0, 1)) :]


def cut_short(text: str, rng: random.Random) -> str:
    return text[: rng.randrange(len(text) + 1)]


def without_a_part(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + text[at + rng.randrange(40) :]


def another_key(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    head, colon, rest = lines[at].partition(":")
    lines[at] = rng.choice((head[:-1], head + "s", head.upper(), rng.choice(EVIL))) + colon + rest
    return "\n".join(lines)


CHANGES: tuple[Callable[[str, random.Random], str], ...] = (
    another_value, another_value, another_value, another_number, another_number, another_item, without_a_line,
    a_line_twice, lines_swapped, indented, another_character, cut_short, without_a_part, another_key,
)  # fmt: skip


@dataclass
class Tally:
    """What came of reading."""

    accepted: int = 0
    refused: int = 0
    longest_seconds: float = 0.0
    longest_words: int = 0
    """Characters of a refusal."""


def tried(read: Callable[[], object], tally: Tally) -> object:
    """What is read, or None where it is refused in words."""
    start, words = time.process_time(), ""
    try:
        value = read()
        tally.accepted += 1
    except UserError as error:
        words = str(error)
        tally.refused += 1
        value = None
    tally.longest_words = max(tally.longest_words, len(words))
    tally.longest_seconds = max(tally.longest_seconds, time.process_time() - start)
    return value


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def text_of(kind: str) -> tuple[type, str]:
    value = KINDS[kind]
    return type(value), strict.dump(value)


def use(value: object) -> None:
    """Do what its readers do with it, who expect no refusal any more."""
    if isinstance(value, DefaultTarget):
        assert Target.parse(value.target).runtime
    if isinstance(value, AllUnreached):
        assert all(Budget.parse(each.budget).milliseconds > 0 for each in value.budgets)
        assert all(len(range(each.repeats)) == each.repeats < 10_000 for each in value.budgets), "drawn as often"
    if isinstance(value, FinishRecipe):
        assert value.recipe in [each.recipe for each in value.tried] or value.chosen is None
        assert 0 <= value.best < len(value.tried)
        assert all(each.recipe.of(load_recipe("quick")).epochs >= 1 for each in value.tried)
    if isinstance(value, Study):
        assert value.search.longest_finish > 0 or not value.search.finish_epochs
        assert all(value.search.tried_epochs)
    if isinstance(value, Timed):
        assert all(math.isfinite(math.log(each.milliseconds)) for each in value.measured)
    if isinstance(value, SharesOfReference):
        assert min(value.of_quantity.values(), default=0) * value.height * value.width >= 0


def read_and_written(text: str, cls: type) -> object:
    """What a text says. It is used too: what was accepted can be asked for its sizes, say."""
    value = strict.parse(text, cls, "a file")
    again = strict.parse(strict.dump(value), cls, "the same file")
    assert again == value
    if isinstance(value, Architecture):
        graph = value.graph(3)
        assert len(widths(graph, value.channels).given) == len(graph.nodes)
    try:
        use(value)
    except UserError as error:
        raise AssertionError("what is wrong with it is not told where it is read") from error
    return value


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_text_is_read_or_refused(kind: str, count: int) -> None:
    cls, text = text_of(kind)
    read_and_written(text, cls)
    tally, before = Tally(), peak_bytes()
    for index in range(count):
        changed = mutated(text, random.Random(f"{kind}/{index}"))
        tried(lambda changed=changed: read_and_written(changed, cls), tally)  # type: ignore[misc]
    assert tally.refused > count / 4
    assert tally.longest_seconds < MOST_SECONDS
    assert tally.longest_words < 3000
    assert peak_bytes() - before < MOST_BYTES


def calls(names: Iterable[str]) -> Iterator[tuple[str, str, ast.Call]]:
    """Calls in the product of functions with these dotted names: in which module, and inside which class if any."""
    for file in sorted(file for package in ("nas", "pruning", "space") for file in (ROOT / package).rglob("*.py")):
        text = file.read_text("utf-8")
        if not any(name in text for name in names):
            continue
        tree = ast.parse(text)
        classes = [each for each in ast.walk(tree) if isinstance(each, ast.ClassDef)]
        inside = {call: each.name for each in classes for call in ast.walk(each)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
                yield ".".join(file.relative_to(ROOT).with_suffix("").parts), inside.get(node, ""), node


def test_every_kind_of_text_that_is_read_is_mutated() -> None:
    read = set()
    for _, around, call in calls(["strict.parse"]):
        cls = ast.unparse(call.args[1])
        read.add(around if cls == "cls" else cls)
    assert len(read) > 15
    assert read - {type(value).__name__ for value in KINDS.values()} == {"ClassList"}  # that of data, below


READERS: Mapping[str, set[str]] = {
    # anchors (tests/nas/latency/test_anchor_files.py), what stands behind its own digest, and words of weights (below)
    "json.loads": {"nas.latency.protocol.anchor", "nas.data.decoded", "nas.runs.labelling"},
    "safe_open": {"nas.training.weights"},  # below
    "torch.load": {
        "nas.training.checkpoint",
        "nas.training.pretrained",
    },  # below; tests/nas/training/test_pretrained.py
    "yaml.compose": {"space.strict"},
    "np.load": set(),
    "json.load": set(),
    "yaml.safe_load": set(),
    "csv.reader": set(),
}
"""Other functions that read files, and where: what is damaged there is looked at here or in the test that is named."""


def test_files_are_read_where_damaged_ones_are_tried() -> None:
    found: dict[str, set[str]] = {name: set() for name in READERS}
    for module, _, call in calls(READERS):
        if not module.startswith("nas.latency.worker."):  # between processes of ours
            found[ast.unparse(call.func)].add(module)
    assert found == READERS


CLASSES = {
    "classes.yaml": "classes: [road, car, sky]\nvoid: 9\ncolours: ['#804080', '#00008e', '#4682b4']\n",
    "classes.txt": "road\ncar\nsky\n",
}


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CLASSES)
def test_mutated_class_lists_are_read_or_refused(name: str, count: int, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / split / kind).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / split / kind / "a.png")
    tally = Tally()
    for index in range(count):
        rng = random.Random(f"{name}/{index}")
        text = "".join(character if rng.random() > 0.02 else rng.choice(EVIL) for character in CLASSES[name])
        changed = mutated(text if rng.random() < 0.3 else CLASSES[name], rng)
        (tmp_path / name).write_bytes(changed.encode("utf-8", "surrogatepass"))
        found = tried(lambda: load(DataSpec(name="folder", root=str(tmp_path))), tally)
        assert found is None or 2 <= found.num_classes <= 255  # type: ignore[attr-defined]
    assert tally.longest_seconds < MOST_SECONDS


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes of a file with some of them changed, most often near its beginning or end, where the words are."""
    at = rng.choice((rng.randrange(len(data)), rng.randrange(min(600, len(data))), len(data) - 1 - rng.randrange(300)))
    kind = rng.randrange(6)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 20))) + data[at:]
    if kind == 2:
        return data[:at] + data[at + rng.randrange(1, 50) :]
    length = 1 if kind < 5 else rng.randrange(1, 200)
    new = bytes(rng.randrange(256) for _ in range(length)) if kind != 4 else bytes([data[at] ^ (1 << rng.randrange(8))])
    return data[:at] + new + data[at + length :]


def damaged_files(file: Path, count: int) -> Iterator[Path]:
    data = file.read_bytes()
    for index in range(count):
        file.write_bytes(damaged(data, random.Random(f"{file.name}/{index}")))
        yield file


@pytest.mark.parametrize("count", [FEW, pytest.param(DAMAGED, marks=pytest.mark.slow)])
def test_damaged_weights_are_read_or_refused(count: int, tmp_path: Path) -> None:
    labelling = Labelling(classes=("a", "b", "c"), palette=((0, 0, 0),) * 3, size=(64, 96), data="folder")
    file = tmp_path / "weights.safetensors"
    save_weights(file, ARCHITECTURE.build(3).state_dict(), metadata(ARCHITECTURE, labelling))
    (tmp_path / "architecture.yaml").write_text(ARCHITECTURE.to_yaml())
    tally, before = Tally(), peak_bytes()
    for _ in damaged_files(file, count):
        tried(lambda: load_trained(str(tmp_path), None).network(3), tally)
        tried(lambda: load_trained(str(tmp_path), None).head_classes(), tally)
        tried(lambda: load_weights(file), tally)
    assert tally.refused > count / 4
    assert tally.longest_seconds < MOST_SECONDS
    assert tally.longest_words < 3000
    assert peak_bytes() - before < MOST_BYTES


@pytest.mark.parametrize("count", [FEW, pytest.param(DAMAGED, marks=pytest.mark.slow)])
def test_damaged_checkpoints_are_read_or_refused(count: int, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    network = {"weight": torch.arange(200.0), "bias": torch.zeros(3)}
    save_checkpoint(
        file, Checkpoint(epoch=3, identity={"recipe": "a"}, network=network, optimizer={"step": 1}, scaler={})
    )
    tally, before = Tally(), peak_bytes()
    for _ in damaged_files(file, count):
        tried(lambda: load_checkpoint(file, {"recipe": "a"}), tally)
    assert tally.refused > count / 4
    assert tally.longest_seconds < MOST_SECONDS
    assert tally.longest_words < 3000
    assert peak_bytes() - before < MOST_BYTES


WORDS = {
    "classes": '["a", "b"]',
    "palette": "[[0, 0, 0], [1, 2, 3]]",
    "size": "64x96",
    "data": "folder",
    "label_values": "[7, 26]",
}


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_words_of_weights_are_read_or_refused(count: int) -> None:
    tally = Tally()
    for index in range(count):
        rng = random.Random(f"words/{index}")
        name = rng.choice(list(WORDS))
        words = {**WORDS, name: rng.choice((mutated(WORDS[name], rng), rng.choice(EVIL), "[" * 100_000))}
        found = tried(lambda words=words: read_labelling(words, Path("weights")), tally)  # type: ignore[misc]
        if isinstance(found, Labelling):
            assert len(found.classes) == len(found.palette)
            assert read_labelling(metadata(ARCHITECTURE, found), Path("weights")) == found
    assert tally.refused > count / 4
    assert tally.longest_seconds < MOST_SECONDS
    assert tally.longest_words < 3000


def test_recipes_are_held_to_the_same_grammar(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"{strict.dump(load_recipe('quick'))}\nseed: {'9' * 300}\n")
    with pytest.raises(UserError, match="seed"):
        load_recipe(tmp_path / "recipe.yaml")
    assert isinstance(load_recipe("quick"), Recipe)
