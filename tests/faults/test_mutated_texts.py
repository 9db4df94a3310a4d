"""Any text that the program reads is read, or refused in words, at once; a value that was read is written as the same
text. The mutations are seeded; `-m slow` makes ten thousand of each kind.
"""

from __future__ import annotations

import ast
import functools
import math
import random
import re
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from nas.data import DataSpec, load
from nas.latency.budget import Budget
from nas.latency.default import DefaultTarget
from nas.latency.estimates.shipped import SharesOfReference
from nas.latency.target import Target
from nas.runs.finish_recipe import FinishRecipe
from nas.runs.labelling import Labelling, metadata, read_labelling
from nas.runs.trained import load_trained
from nas.runs.trial import Timed
from nas.runs.unreached import AllUnreached
from nas.study import Study
from nas.training import Recipe, load_recipe
from nas.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nas.training.weights import load_weights, save_weights
from space import Architecture, UserError, strict
from space.channels import widths

ROOT = Path(__file__).resolve().parents[2]
FEW, MANY = 60, 10_000
DAMAGED = 400
MOST_SECONDS = 1.0  # of this process's own time
MOST_BYTES = 500_000_000
Mutated = Callable[[str, random.Random], str]


@dataclass
class Tally:
    """How many texts were read and refused, with the longest time and the longest refusal."""

    accepted: int = 0
    refused: int = 0
    longest_seconds: float = 0.0
    longest_words: int = 0
    """Characters of a refusal."""


def tried(read: Callable[[], object], tally: Tally) -> object:
    """The value that was read, or None when it was refused in words."""
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


def use(value: object) -> None:
    """Use a value as the program does after reading, when it expects no refusal any more."""
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
    """The value of a text, which must also survive writing and its first use."""
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
def test_a_mutated_text_is_read_or_refused(kind: str, kinds: Mapping[str, Any], mutated: Mutated, count: int) -> None:
    cls, text = type(kinds[kind]), strict.dump(kinds[kind])
    read_and_written(text, cls)
    tally, before = Tally(), peak_bytes()
    for index in range(count):
        changed = mutated(text, random.Random(f"{kind}/{index}"))
        tried(lambda changed=changed: read_and_written(changed, cls), tally)  # type: ignore[misc]
    assert tally.refused > count / 4
    assert tally.longest_seconds < MOST_SECONDS
    assert tally.longest_words < 3000
    assert peak_bytes() - before < MOST_BYTES


def other_values(value: Any) -> Iterator[Any]:
    """Variants of a value: a number or a list replaces the value itself or one of the mappings and lists in it."""
    if not isinstance(value, (dict, list)):
        return
    yield 3
    yield []
    for place, inner in value.items() if isinstance(value, dict) else enumerate(value):
        for other in other_values(inner):
            changed = value.copy()
            changed[place] = other
            yield changed


@functools.cache
def classes_of_ours() -> set[str]:
    """Names of the program's classes, also in lower case where they consist of several words."""
    names = {name for file in sources() for name in re.findall(r"^ *class _?(\w+)", file.read_text("utf-8"), re.M)}
    return names | {name.lower() for name in names if sum(letter.isupper() for letter in name) > 1}


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def test_refusals_name_no_class_of_the_program(kind: str, kinds: Mapping[str, Any]) -> None:
    cls, ours = type(kinds[kind]), classes_of_ours()
    assert {"AllUnreached", "allunreached", "Architecture"} <= ours
    texts = ["", "null", "erfnet", *map(yaml.safe_dump, other_values(strict.plain(kinds[kind])))]
    for text in texts:
        try:
            strict.parse(text, cls, "a file")
        except UserError as error:
            said = str(error)
        else:
            continue
        assert not ours & (words_of(said) - words_of(text)), said
        if text in texts[:5]:
            assert "expected the key" in said, "what would have been right"


def sources() -> list[Path]:
    """The source files of the program."""
    return sorted(file for package in ("nas", "pruning", "space") for file in (ROOT / package).rglob("*.py"))


def calls(names: Iterable[str]) -> Iterator[tuple[str, str, ast.Call]]:
    """Calls of functions with these dotted names in the program, each with its module and its class, if any."""
    for file in sources():
        text = file.read_text("utf-8")
        if not any(name in text for name in names):
            continue
        tree = ast.parse(text)
        classes = [each for each in ast.walk(tree) if isinstance(each, ast.ClassDef)]
        inside = {call: each.name for each in classes for call in ast.walk(each)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
                yield ".".join(file.relative_to(ROOT).with_suffix("").parts), inside.get(node, ""), node


def test_every_kind_of_text_that_the_program_reads_is_mutated(kinds: Mapping[str, Any]) -> None:
    place_of_class = {"strict.parse": 1, "read_record": 2, "find_record": 2, "cached_record": 1}
    read = set()
    for module, around, call in calls(place_of_class):
        cls = ast.unparse(call.args[place_of_class[ast.unparse(call.func)]])
        if module != "nas.storage.records":  # its callers give the class
            read.add(around if cls == "cls" else cls)
    assert len(read) > 15
    assert read <= {type(value).__name__ for value in kinds.values()}


READERS: Mapping[str, set[str]] = {
    # anchors (tests/nas/latency/test_anchor_files.py), a file with a digest of its own, metadata of weights (below)
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
"""Other functions that read files, and their callers: damaged files are tested here or in the test that is named."""


def test_only_modules_tested_with_damaged_files_read_files() -> None:
    found: dict[str, set[str]] = {name: set() for name in READERS}
    for module, _, call in calls(READERS):
        if not module.startswith(
            ("nas.latency.worker.", "nas.quantization.runner_process")
        ):  # messages between processes of this program
            found[ast.unparse(call.func)].add(module)
    assert found == READERS


CLASSES = {
    "classes.yaml": "classes: [road, car, sky]\nvoid: 9\ncolours: ['#804080', '#00008e', '#4682b4']\n",
    "classes.txt": "road\ncar\nsky\n",
}


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CLASSES)
def test_mutated_class_lists_are_read_or_refused(
    name: str, count: int, mutated: Mutated, evil: tuple[str, ...], tmp_path: Path
) -> None:
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / split / kind).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / split / kind / "a.png")
    tally = Tally()
    for index in range(count):
        rng = random.Random(f"{name}/{index}")
        text = "".join(character if rng.random() > 0.02 else rng.choice(evil) for character in CLASSES[name])
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
def test_damaged_weights_are_read_or_refused(count: int, narrow: Architecture, tmp_path: Path) -> None:
    labelling = Labelling(classes=("a", "b", "c"), palette=((0, 0, 0),) * 3, size=(64, 96), data="folder")
    file = tmp_path / "weights.safetensors"
    save_weights(file, narrow.build(3).state_dict(), metadata(narrow, labelling))
    (tmp_path / "architecture.yaml").write_text(narrow.to_yaml())
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
def test_mutated_metadata_of_weights_are_read_or_refused(
    count: int, narrow: Architecture, mutated: Mutated, evil: tuple[str, ...]
) -> None:
    tally = Tally()
    for index in range(count):
        rng = random.Random(f"words/{index}")
        name = rng.choice(list(WORDS))
        words = {**WORDS, name: rng.choice((mutated(WORDS[name], rng), rng.choice(evil), "[" * 100_000))}
        found = tried(lambda words=words: read_labelling(words, Path("weights")), tally)  # type: ignore[misc]
        if isinstance(found, Labelling):
            assert len(found.classes) == len(found.palette)
            assert read_labelling(metadata(narrow, found), Path("weights")) == found
    assert tally.refused > count / 4
    assert tally.longest_seconds < MOST_SECONDS
    assert tally.longest_words < 3000


def test_recipe_files_are_read_by_the_same_strict_reader(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"{strict.dump(load_recipe('quick'))}\nseed: {'9' * 300}\n")
    with pytest.raises(UserError, match="seed"):
        load_recipe(tmp_path / "recipe.yaml")
    assert isinstance(load_recipe("quick"), Recipe)
