"""`nas show`: layers, totals and measured times."""

from __future__ import annotations

import re

import pytest

import space


@pytest.mark.parametrize("name", ["erfnet", "swiftnet-rn18-pyramid", "ndnet45-ende"])
def test_the_table_adds_up_to_the_network(nas, name):
    answer = nas("show", name, "--input", "64x96", "--classes", "19", "--all")
    assert answer.code == 0, answer.err
    architecture = space.load(name)
    assert f"{space.parameters(architecture, 19):,} parameters" in answer.out
    assert f"{space.multiply_adds(architecture, (64, 96), 19) / 1e9:.3f} G multiply-adds at 64x96" in answer.out
    assert architecture.key in answer.out
    header, _, *rows = answer.out.split("\n\n")[0].splitlines()
    assert header.split()[:4] == ["layer", "kind", "output", "kernel"]
    assert len(rows) == len(space.layers(architecture, (64, 96), 19))
    parameters = [int(row.split()[-3].replace(",", "")) for row in rows]
    assert sum(parameters) == space.parameters(architecture, 19)
    assert sum(float(row.split()[-1]) for row in rows) == pytest.approx(100, abs=0.05 * len(rows))


def test_only_convolutions_have_their_own_lines_by_default(nas):
    answer = nas("show", "fplnet", "--input", "64x96")
    layers = space.layers(space.load("fplnet"), (64, 96), 11)
    convolutions = [layer for layer in layers if layer.multiply_adds]
    rest = {layer.kind for layer in layers if not layer.multiply_adds}
    rows = answer.out.split("\n\n")[0].splitlines()[2:]
    assert len(rows) == len(convolutions) + len(rest)
    for layer in convolutions:
        assert re.search(
            rf"^{re.escape(layer.name)} +{layer.kind} +{layer.out_channels}x{layer.height}x", answer.out, re.M
        )
    activations = sum(layer.kind == "act" for layer in layers)
    assert f"({activations} x act)" in answer.out
    assert "3x1 dilated 16" in answer.out


@pytest.mark.slow
def test_latency_is_measured_for_the_whole_and_shared_by_the_layers(nas, small):
    answer = nas("show", small, "--input", "64x96", "--latency", "--target", "null@cpu:1")
    assert answer.code == 0, answer.err
    assert re.search(r"measured latency: \d+\.\d\d ms \+-\d+\.\d\d on null@cpu:1 at 64x96", answer.out)
    assert "arg-max to labels" in answer.out
    under_way, header, _, *rows = answer.out.split("\n\n")[0].splitlines()
    assert under_way.startswith("timing the layers of ")
    assert header.endswith("% of time")
    assert sum(float(row.split()[-1]) for row in rows) == pytest.approx(100, abs=0.05 * len(rows))


def test_mistakes_of_the_user_are_answered_in_one_line(nas, tmp_path):
    answer = nas("show", "erfnett")
    assert answer.refusal() == (
        "nas show: expected a published network or a YAML file, got 'erfnett'; did you mean 'erfnet'?"
    )
    assert answer.out == ""
    assert "expected 2 to 255, got 1" in nas("show", "erfnet", "--classes", "1").refusal()
    for words in (("--target", "torch@cpu"), ("--within", "3%")):
        assert "nothing is measured without --latency" in nas("show", "erfnet", *words).refusal()
    broken = tmp_path / "broken.yaml"
    broken.write_text(space.load("erfnet").to_yaml().replace("levels:", "level:"))
    assert "unknown key 'level'; did you mean 'levels'?" in nas("show", broken).refusal()
    hostile = tmp_path / "hostile.yaml"
    hostile.write_text("!!python/object/apply:os.system ['true']")
    assert "YAML tags are not accepted" in nas("show", hostile).refusal()
