"""A block, a decoder and a data set of other packages, one file each, need only be installed to work everywhere.

The file is put beside an `entry_points.txt`, as an installer would do, and the contract suites and the command line run
with it in a process of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from space import blocks

TOYS = Path(__file__).parent / "toys"
ROOT = Path(__file__).parents[2]

# The tests of the contract suites that a part of another package must pass, as every part of this package does.
STATIONS = {
    "block": {
        "drawn and built": "test_blocks.py::test_the_space_draws_every_block_kind_and_its_networks_can_be_built",
        "written and read": "test_parts.py::test_an_architecture_survives_yaml_and_its_genotype",
        "counted": "test_parts.py::test_parameters_and_multiply_adds_are_those_of_pytorch",
        "scaled": "test_blocks.py::test_a_block_kind_is_scaled_to_widths_that_it_allows",
        "estimated": "test_blocks.py::test_the_latency_of_a_block_kind_is_estimated",
        "pruned": "test_parts.py::test_cutting_channels_is_exact",
        "shortened": "test_blocks.py::test_blocks_can_be_removed_and_the_remaining_ones_keep_their_weights",
        "exported": "test_parts.py::test_the_exported_graph_gives_the_outputs_of_pytorch",
        "described": "test_blocks.py::test_a_block_kind_is_described_in_words",
        "checked": "test_blocks.py::test_a_stage_refuses_values_that_its_block_kind_cannot_have",
    },
    "decoder": {
        "drawn and built": "test_decoders.py::test_the_space_draws_every_decoder_and_its_networks_can_be_built",
        "written and read": "test_parts.py::test_an_architecture_survives_yaml_and_its_genotype",
        "counted": "test_parts.py::test_parameters_and_multiply_adds_are_those_of_pytorch",
        "scaled": "test_decoders.py::test_decoder_widths_follow_a_factor_and_can_change_alone",
        "estimated": "test_decoders.py::test_the_latency_of_a_decoder_is_estimated",
        "pruned": "test_parts.py::test_cutting_channels_is_exact",
        "exported": "test_parts.py::test_the_exported_graph_gives_the_outputs_of_pytorch",
        "described": "test_decoders.py::test_a_decoder_is_described_in_words",
    },
}
STUDY = """
data: {name: road_scenes, size: [48, 64], train_images: 12, validation_images: 4}
budget: 50ms
target: null@cpu:1
recipe: {optimizer: adamw, learning_rate: 0.006, epochs: 1, batch_size: 4}
space: {block: [toy], decoder: [toy-sum], stages: [2], stage.depth: [1]}
search: {seeds: [], random_trials: 1, guided_trials: 0, finalists: 1, finish_epochs: 0, concurrent: 1}
"""


def install(folder: Path, group: str, name: str, module: str) -> dict[str, str]:
    """Install a package that consists of one of the toys; return the environment in which it is installed."""
    shutil.copy(TOYS / f"{module}.py", folder)
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[framebudget.{group}]\n{name} = {module}\n")
    path = os.pathsep.join([str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path}


def run(environment: dict[str, str], *arguments: str) -> str:
    """The output of a command."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], env=environment, capture_output=True, text=True, cwd=ROOT, timeout=900
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("part", "name", "suite"),
    [
        ("block", "toy", "test_blocks.py"),
        pytest.param("block", "toy", "test_parts.py", marks=pytest.mark.slow),
        pytest.param("decoder", "toy-sum", "test_decoders.py", marks=pytest.mark.slow),
        pytest.param("decoder", "toy-sum", "test_parts.py", marks=pytest.mark.slow),
    ],
)
def test_parts_of_other_packages_pass_the_contract_suites(part: str, name: str, suite: str, tmp_path: Path) -> None:
    environment = install(tmp_path, f"{part}s", name, f"toy_{part}")
    stations = {station: test for station, test in STATIONS[part].items() if test.startswith(suite)}
    assert len(stations) >= 4
    told = run(
        environment, "pytest", f"tests/contracts/{suite}", "-k", f"{name}]", "-m", "", "-vv", "-p", "no:cacheprovider"
    )
    for station, test in stations.items():
        assert re.search(rf"{re.escape(test)}\[({part}-)?{name}\] PASSED", told), f"{station}: {told}"


@pytest.mark.slow
def test_a_search_trains_certifies_and_describes_parts_of_other_packages(tmp_path) -> None:
    install(tmp_path, "blocks", "toy", "toy_block")
    environment = install(tmp_path, "decoders", "toy-sum", "toy_decoder")
    (tmp_path / "study.yaml").write_text(STUDY)
    told = run(environment, "nas.cli", "search", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "run"))
    winner = tmp_path / "run" / "winner"
    assert (winner / "model.onnx").is_file(), told
    architecture = (winner / "architecture.yaml").read_text()
    assert "block: toy" in architecture
    assert "block_options:\n    repeats: " in architecture
    assert "kind: toy-sum" in architecture
    assert "passed: true" in (winner / "certificate.yaml").read_text()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "repeated convolution block" in page
    assert "sum of " in page


def test_a_yaml_file_is_refused_when_the_package_of_its_block_is_missing(tmp_path) -> None:
    environment = install(tmp_path, "blocks", "toy", "toy_block")
    draw = (
        "import random; from space import Space;"
        "print(Space(ranges={'block': ('toy',)}).sample(random.Random(0)).to_yaml())"
    )
    text = subprocess.run([sys.executable, "-c", draw], env=environment, capture_output=True, text=True, check=True)
    (tmp_path / "toy.yaml").write_text(text.stdout)
    assert "toy.yaml: " in (told := run(environment, "nas.cli", "show", str(tmp_path / "toy.yaml")))
    assert "repeats" not in told
    refused = run(dict(os.environ), "nas.cli", "show", str(tmp_path / "toy.yaml"))
    known = ", ".join(blocks.names())
    assert f"stages[0].block: expected one of {known}; got 'toy'" in refused


def test_a_block_name_that_is_taken_is_refused(tmp_path) -> None:
    environment = install(tmp_path, "blocks", "nonbt", "toy_block")
    told = run(environment, "nas.cli", "show", "erfnet")
    assert "expected one 'nonbt' in framebudget.blocks" in told
    assert "uninstall one" in told


def test_an_entry_point_that_is_no_block_is_refused(tmp_path) -> None:
    environment = install(tmp_path, "blocks", "broken", "toy_block")
    (tmp_path / "toy_block.py").write_text("BLOCK = 'nothing of the kind'\n")
    told = run(environment, "nas.cli", "show", "erfnet")
    assert "expected BLOCK, a space.block.Block, in the module of 'broken', got 'nothing of the kind'" in told
    assert "Traceback" not in told


def test_a_data_set_of_another_package_is_loaded_by_its_name(tmp_path) -> None:
    environment = install(tmp_path, "data_sets", "toy_set", "toy_data_set")
    ask = (
        "from nas.data import DataSpec, data_sets, load;"
        "found = load(DataSpec(name='toy_set', size=(48, 64), train_images=3, validation_images=2));"
        "print('toy_set' in data_sets(), found.name, found.classes, len(found.train), len(found.validation))"
    )
    told = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "True toy_set ('road', 'anything else') 3 2"
