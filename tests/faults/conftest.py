"""The kinds of text that the program reads, a value of each, and the mutations of texts."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

import space
from nas.data import DataSpec
from nas.data.class_list import ClassList
from nas.data.fingerprint import Fingerprint
from nas.latency.default import DefaultTarget
from nas.latency.estimates.calibration import MeasuredNetwork, RefusedNetwork
from nas.latency.estimates.shipped import SharesOfReference
from nas.latency.estimates.table import LatencyTable
from nas.latency.protocol.anchor import Anchor
from nas.latency.record import Latency, OtherPrecision
from nas.report.agreement import Agreement
from nas.report.effort import Effort
from nas.report.going import Going
from nas.report.precisions import LowerPrecision
from nas.report.standings import Standing, TrialSummary
from nas.report.summary import Summary
from nas.report.winners import LatencySummary, Winner
from nas.runs.certificate import Certificate
from nas.runs.data_seen import DataSeen
from nas.runs.earlier import Earlier, EarlierTrial
from nas.runs.finish_recipe import FinishRecipe, Tried
from nas.runs.folder import Order, Sources
from nas.runs.initial_weights import InitialWeights
from nas.runs.spent import Spent
from nas.runs.table import BegunWith
from nas.runs.terms import Terms
from nas.runs.trained import ScoreCard
from nas.runs.trial import Epoch, Measured, Pretrained, Progress, Rung, Timed, Trial
from nas.runs.unreached import AllUnreached, Unreached
from nas.runs.warm_start import ScoredGenotype, Table, WarmStart
from nas.study import SearchPlan, Study
from nas.training import Scores, Variant, load_recipe
from nas.training.compute_mode import ComputeMode
from nas.training.pretrained import Taken
from space import Architecture
from space.scale import scale_width

IN_INT8 = OtherPrecision(
    precision="int8", p50_milliseconds=10.9, p90_milliseconds=11.0, p99_milliseconds=12.0, ci_low_milliseconds=10.8,
    ci_high_milliseconds=11.0, flagged=("a busy host",),
)  # fmt: skip
LATENCY = Latency(
    p50_milliseconds=9.77, p90_milliseconds=10.1, p99_milliseconds=12.0, ci_low_milliseconds=9.7,
    ci_high_milliseconds=9.9, samples=40, ratio=1.954, ratio_low=1.94, ratio_high=1.98, reference_milliseconds=5.0,
    raw_p50_milliseconds=9.9, target="onnxruntime@cpu:1", height=64, width=96, scope="network and arg-max",
    set_aside=3, blocks=((9.7, 5.0), (9.8, 5.1)), flagged=("a: 'busy' # host",), environment={"cpu": "an invented one"},
    processes_milliseconds=(9.7, 9.77, 9.8), other_precisions=(IN_INT8,),
)  # fmt: skip
SCORES = Scores(miou=0.5, class_iou=(0.5, None, 0.25), pixel_accuracy=0.75)
ARCHITECTURE = scale_width(space.load("ndnet29-fcn32"), 0.2)
TIMING = LatencySummary(
    precision="fp32",
    milliseconds=9.77, p50_milliseconds=9.77, ci_low_milliseconds=9.7, ci_high_milliseconds=9.9, within_budget=True,
    verdict="PASS", flagged=(), other_precisions=(IN_INT8,),
)  # fmt: skip
CERTIFICATE = Certificate(
    architecture=ARCHITECTURE.key, certified="2020-01-01T00:00:00+00:00", version="0", budget="10ms", passed=True,
    latency=LATENCY, precision="fp32", protocol="invented", miou=0.5, pixel_accuracy=0.75,
    class_iou={"ground": 0.5, "box": None}, scored="not at all", data="folder", validation_images=3, num_classes=2,
    input_mean=(0.5, 0.5, 0.5), input_std=(0.2, 0.2, 0.2), parameters=1000, multiply_adds=10**6, onnx_images=1,
    onnx_max_abs_difference=1e-6, onnx_tolerance=1e-3, onnx_same_labels=1.0, sha256={"model.onnx": "00" * 32},
    values_sha256="11" * 32,
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
    reference_milliseconds=5.0,
)  # fmt: skip
KINDS: Mapping[str, Any] = {
    "architecture": space.load("swiftnet-rn18"),
    "narrowed architecture": replace(ARCHITECTURE, channels=dict(list(space.granules(ARCHITECTURE).items())[:3])),
    "study": Study(
        data=DataSpec(name="folder", root="images", size=(64, 96), train_images=4),
        budget="10ms p90",
        recipe=load_recipe("quick"),
        target="onnxruntime@cpu:1",
        space={"block": ("nonbt", "sep"), "stage.depth": (1, 2)},
        search=SearchPlan(
            company=("erfnet",), minutes=45.0, finish_recipes=(Variant(), Variant(ema_decay=0.9, epochs=30))
        ),
    ),
    "recipe": load_recipe("erfnet"),
    "certificate": CERTIFICATE,
    "compute mode of a training": ComputeMode(device="cpu", precision="fp32", layout="channels_last"),
    "what a training began with": Taken(layers=("conv1",), fresh=("conv2",), unused=("fc",), reason="no conv2: none"),
    "where the first weights came from": InitialWeights(file="resnet18.pth", sha256="00" * 32),
    "budgets that were given up": AllUnreached(
        budgets=(Unreached(budget="1ms", reason="nothing is inside", searched=True, number=3, repeats=2),)
    ),
    "time that a run took": Spent(seconds=61.5, closed_minutes=45.0, over_minutes=30.0),
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
    "warm start": WarmStart(
        tables=(
            Table(
                trained_on="streets: of 'one' town",
                evaluations=(ScoredGenotype(miou=0.3, genotype={"block": "sep", "width": 16, "bias": False}),),
            ),
        ),
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
            random_trials=1,
            guided_trials=0,
            guided_cost=0.0,
            draws=1,
            compared=0,
            best_random_miou=0.4,
            best_guided_miou=None,
            earlier_draws=1,
        ),
        agreements=(Agreement(proxy="parameters", truth="latency", points=1, tau=None),),
        trials=(CANDIDATE,),
        company=(),
        notes=("a note",),
        going=Going(trained=1, paused=0, under_way=0, waiting=0, failed=0, over_budget=0, steps=("certify",)),
        lower_precisions=(
            LowerPrecision(
                precision="int8", counted=0, candidates=1, highest="fp32", compared=1, undisturbed=1, times_as_long=1.12
            ),
        ),
    ),
    "anchor": Anchor(
        milliseconds=5.0,
        canary=0.2,
        blocks_milliseconds=(5.0, 5.1),
        blocks_canary=(0.2, 0.21),
        taken="2020-01-01",
        device={"runtime": "torch"},
        flagged=(),
        best_milliseconds=4.5,
        away_milliseconds=(6.5,),
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
    "classes": ClassList(classes=("road", "car", "sky"), void=("sky",), colours=("#804080", "#00008e", "#4682b4")),
    "terms of a run": Terms(recipe=load_recipe("erfnet"), precisions=("fp32", "int8")),
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
                over=True,
            ),
        )
    ),
    "what was timed on the way": Timed(
        measured=(Measured(architecture=ARCHITECTURE, milliseconds=9.8, disturbed=False, seconds=4.2),),
        in_vain_seconds=1.5,
    ),
    "measured network": MeasuredNetwork(
        index=3, key=ARCHITECTURE.key, num_classes=11, ratio=1.5, reference_milliseconds=5.0, seconds=3.0, flagged=False
    ),
    "network that a calibration could not measure": RefusedNetwork(
        index=3, key=ARCHITECTURE.key, num_classes=11, reason="it gives other labels"
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


def _mutated(text: str, rng: random.Random) -> str:
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


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def kinds() -> Mapping[str, Any]:
    """A value of each kind of text, by the name of the kind."""
    return KINDS


@pytest.fixture(scope="session")
def narrow() -> Architecture:
    """A narrow network, which is read at once."""
    return ARCHITECTURE


@pytest.fixture(scope="session")
def mutated() -> Callable[[str, random.Random], str]:
    """Changes a text in one to three places."""
    return _mutated


@pytest.fixture(scope="session")
def evil() -> tuple[str, ...]:
    """Texts to put in place of others."""
    return EVIL
