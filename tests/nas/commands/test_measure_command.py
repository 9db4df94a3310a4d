"""`nas measure`: its table, its files, and refused targets."""

from __future__ import annotations

import csv
import re
from dataclasses import replace

import matplotlib
import pytest
from PIL import Image

from nas.commands.measure import print_settling
from nas.commands.shared import output
from nas.latency.budget import Budget
from nas.latency.estimates.calibration import Calibration, LeftOut
from nas.latency.estimates.table import LatencyTable
from nas.latency.record import Latency
from nas.report import leaderboard
from nas.report.calibration import write_calibration
from nas.report.leaderboard import write_leaderboard
from space.errors import UserError

COLUMNS = (
    "network,target,height,width,threads,p50_milliseconds,p90_milliseconds,p99_milliseconds,"
    "ci_low_milliseconds,ci_high_milliseconds,samples,flagged"
)
QUIET = Latency(
    p50_milliseconds=2.0, p90_milliseconds=3.0, p99_milliseconds=4.0, ci_low_milliseconds=1.9,
    ci_high_milliseconds=2.1, samples=40, ratio=0.5, ratio_low=0.4, ratio_high=0.6, reference_milliseconds=4.0,
    raw_p50_milliseconds=2.2, target="torch@cpu:1", height=64, width=96, scope="network", blocks=((2.0, 4.0),),
    environment={"threads": "1"},
)  # fmt: skip


@pytest.mark.slow
def test_networks_are_listed_and_written_from_the_fastest_to_the_slowest(nas, small, tmp_path):
    board = tmp_path / "board"
    networks = ("ndnet29-fcn32", small)
    answer = nas("measure", *networks, "--target", "null@cpu:1", "--input", "64x96", "--classes", "3", "--out", board)
    assert answer.code == 0, answer.err
    assert "2 networks on null@cpu:1 at 64x96, batch 1, 3 classes" in answer.out
    assert "timed: network, upsampling" in answer.out

    text = (board / "latency.csv").read_text()
    assert text.splitlines()[0] == COLUMNS
    rows = list(csv.DictReader(text.splitlines()))
    assert {row["network"] for row in rows} == {str(network) for network in networks}
    medians = [float(row["p50_milliseconds"]) for row in rows]
    assert medians == sorted(medians)
    for row in rows:
        numbers = {name: float(row[name]) for name in row if name.endswith("_milliseconds")}
        assert numbers["p50_milliseconds"] <= numbers["p90_milliseconds"] <= numbers["p99_milliseconds"]
        assert numbers["ci_low_milliseconds"] <= numbers["p50_milliseconds"] <= numbers["ci_high_milliseconds"]
        assert (row["target"], row["height"], row["width"], row["threads"]) == ("null@cpu:1", "64", "96", "1")
        assert int(row["samples"]) >= 40
        assert re.search(rf"^{re.escape(row['network'])} +{numbers['p50_milliseconds']:.2f} ", answer.out, re.M)
        assert (f"! {row['network']}: " in answer.out) == bool(row["flagged"])
    blocks = list(csv.DictReader((board / "blocks.csv").read_text().splitlines()))
    assert {block["network"] for block in blocks} == {row["network"] for row in rows}
    assert all(len([block for block in blocks if block["network"] == row["network"]]) >= 8 for row in rows)
    with Image.open(board / "latency.png") as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(picture.width * picture.height)) > 10  # the picture is not empty


@pytest.mark.share(2)
@pytest.mark.parametrize(("budget", "verdict", "code"), [("1000ms p99", "PASS", 0), ("0.001ms", "FAIL", 3)])
def test_networks_are_judged_by_a_budget(nas, budget, verdict, code):
    answer = nas("measure", "ndnet29-fcn32", "--target", "null@cpu:1", "--input", "64x96", "--budget", budget)
    assert answer.code == code, answer.err
    assert re.search(rf" {budget}\n.*\nndnet29-fcn32 .* {verdict}\n", answer.out)


def test_an_unsure_verdict_prints_the_command_that_settles_it(capsys):
    wide = Latency(
        p50_milliseconds=2.39, p90_milliseconds=3.0, p99_milliseconds=4.0, ci_low_milliseconds=1.73,
        ci_high_milliseconds=9.53, samples=40, ratio=0.5, ratio_low=0.4, ratio_high=2.0, reference_milliseconds=4.0,
        raw_p50_milliseconds=2.2, target="torch@cpu:2", height=64, width=96, scope="network", flagged=("a neighbour",),
    )  # fmt: skip
    print_settling({"erfnet": wide}, Budget.parse("5ms"), 11)
    told = capsys.readouterr().out
    assert "5ms lies within the 95 % interval, 1.73 to 9.53 ms, because the machine was busy" in told
    command = "nas measure erfnet --target torch@cpu:2 --input 64x96 --classes 11 --budget '5ms' --within 1.5%"
    assert f"{command} --patience 5min" in told
    assert "--target torch@cpu:1" in told  # fewer threads
    print_settling({"erfnet": replace(wide, processes_milliseconds=(2.0, 2.39, 9.0))}, Budget.parse("5ms"), 11)
    told = capsys.readouterr().out
    assert "2 of 3 processes kept it" in told
    assert "--within 1.5% --processes 9 --patience 5min" in told
    print_settling({"erfnet": replace(wide, processes_milliseconds=(2.0, 2.39, 2.4))}, Budget.parse("5ms"), 11)
    assert "--within 1.5% --processes 3 --patience 5min" in capsys.readouterr().out


@pytest.mark.slow
def test_every_process_measures_all_networks(nas, small, tmp_path):
    board = tmp_path / "board"
    given = ("--target", "null@cpu:1", "--input", "64x96", "--classes", "3", "--within", "10%", "--out", board)
    assert nas("measure", "ndnet29-fcn32", small, *given, "--processes", "2").code == 0
    rows = list(csv.DictReader((board / "latency.csv").read_text().splitlines()))
    blocks = list(csv.DictReader((board / "blocks.csv").read_text().splitlines()))
    assert {row["network"] for row in rows} == {"ndnet29-fcn32", str(small)}
    for row in rows:  # 10 % ask two blocks of a process
        assert len([block for block in blocks if block["network"] == row["network"]]) >= 4


def test_the_table_gives_reasons_to_distrust_a_latency(tmp_path):
    write_leaderboard(tmp_path, {"one": QUIET, "other": replace(QUIET, flagged=("a neighbour", "few blocks"))})
    assert (tmp_path / "latency.csv").read_text().splitlines()[1:] == [
        "one,torch@cpu:1,64,96,1,2.0000,3.0000,4.0000,1.9000,2.1000,40,",
        "other,torch@cpu:1,64,96,1,2.0000,3.0000,4.0000,1.9000,2.1000,40,a neighbour; few blocks",
    ]
    assert (tmp_path / "blocks.csv").read_text().splitlines()[1:] == ["one,0,2.0000,4.0000", "other,0,2.0000,4.0000"]
    with Image.open(tmp_path / "latency.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(picture.width * picture.height)}
    assert (59, 110, 165) in colours
    assert any(max(abs(a - b) for a, b in zip(colour, (167, 190, 214), strict=True)) <= 1 for colour in colours)  # pale


@pytest.mark.parametrize(
    ("words", "name"),
    [
        *((("erfnet",), name) for name in ("latency.csv", "blocks.csv", "latency.png")),
        *((("--calibrate",), name) for name in ("calibration.csv", "calibration.png")),
    ],
)
def test_a_measurement_that_would_overwrite_a_users_file_is_refused(nas, tmp_path, words, name):
    (tmp_path / name).write_text("mine")
    told = nas("measure", *words, "--target", "null@cpu:1", "--out", tmp_path).refusal()
    assert f"expected no {tmp_path / name}, or one that this version of `nas measure` wrote" in told
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", [leaderboard.TABLE, leaderboard.BLOCKS])
def test_a_table_that_appears_while_networks_are_timed_is_not_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name}: expected none still"):
        write_leaderboard(tmp_path, {"one": QUIET})
    assert (tmp_path / name).read_text() == "mine"


def test_files_of_an_earlier_measurement_are_replaced(nas, tmp_path):
    left_out = tuple(
        LeftOut(name=f"{each}", measured_milliseconds=each, estimated_milliseconds=each, multiply_adds=1, parameters=1)
        for each in (1.0, 2.0)
    )
    table = LatencyTable(
        target="null@cpu:1", height=64, width=96, milliseconds={}, unit_milliseconds={}, networks=20, seconds=1.0,
        error=0.1, environment={},
    )  # fmt: skip
    write_leaderboard(tmp_path, {"one": QUIET})
    write_calibration(tmp_path, Calibration(table=table, left_out=left_out, flagged=0, refused=(), better=None))
    for words in (("erfnet",), ("--calibrate",)):
        told = nas("measure", *words, "--target", "onnx@cpu", "--out", tmp_path).refusal()
        assert "did you mean 'onnxruntime'?" in told, "the check that comes next"


@pytest.mark.parametrize("name", ["$\\nothing$", "a $ and a _"])
def test_names_are_drawn_literally_whatever_the_users_settings(tmp_path, name):
    with matplotlib.rc_context({"text.usetex": True}):
        write_leaderboard(tmp_path, {name: QUIET})
    with Image.open(tmp_path / "latency.png") as picture:
        assert picture.format == "PNG"


def test_only_networks_named_by_the_user_are_looked_for_in_the_current_folder(nas, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "erfnet").mkdir()
    for name in ("architecture.yaml", "certificate.yaml"):
        (tmp_path / "erfnet" / name).write_text("broken")
    assert "erfnet/certificate.yaml:1: expected the keys" in nas("measure", "erfnet", "--target", "onnx@cpu").refusal()
    assert "did you mean 'onnxruntime'?" in nas("measure", "--target", "onnx@cpu").refusal()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("erfnt",), "did you mean 'erfnet'?"),
        (("erfnet", "--target", "onnx@cpu"), "did you mean 'onnxruntime'?"),
        (("erfnet", "--target", "onnxruntime"), "expected runtime[:precision]@device, got 'onnxruntime'"),
        (("erfnet", "--target", "onnxruntime@cpu:99"), "asks for 99 threads"),
        (("erfnet", "--input", "0x0"), "--input: expected HEIGHTxWIDTH"),
        (("erfnet", "--calibrate"), "--calibrate draws its networks itself; leave out erfnet"),
        (("--calibrate", "--processes", "3"), "measures each network once; leave out --processes"),
        (("erfnet", "--processes", "0"), "--processes: expected 1 to 20, got 0"),
        (("--calibrate", "--networks", "3"), "--networks: expected at least 20, got 3"),
        (("erfnet", "--networks", "30"), "--networks goes with --calibrate"),
        (("--calibrate", "--within", "1%"), "leave out --within"),
        (("erfnet", "--within", "0.015"), "--within: expected a percentage such as 1.5%, got '0.015'"),
        (("erfnet", "--within", "50%"), "--within: expected 0.1% to 20% of a latency, got 50.00%"),
    ],
)
def test_impossible_measurements_are_refused_in_one_line(nas, given, expected):
    assert expected in nas("measure", *given).refusal()


@pytest.mark.slow
def test_a_calibration_prints_and_writes_the_accuracy_of_its_estimates(nas, tmp_path):
    out = tmp_path / "out"
    answer = nas(
        "measure", "--calibrate", "--networks", "40", "--target", "torch@cpu:1", "--input", "64x96", "--out", out
    )
    assert answer.code == 0, answer.err
    assert re.search(r"latency table +\d+\.\d% +0\.\d+", answer.out)
    assert re.search(r"multiply-adds +\d+\.\d% +0\.\d+", answer.out)
    assert (out / "calibration.csv").read_text().startswith("network,measured_milliseconds,estimated_milliseconds")
    with Image.open(out / "calibration.png") as picture:
        assert picture.format == "PNG"


def test_only_pictures_beside_a_table_of_this_command_may_be_replaced_without_a_mark(tmp_path):
    def check() -> None:
        output.require_replaceable(tmp_path, leaderboard.MARKS, "measure", table=leaderboard.TABLE)

    (tmp_path / leaderboard.PICTURE).write_bytes(b"\x89PNG of an earlier version")
    with pytest.raises(UserError, match="remove it, or give another folder"):
        check()
    (tmp_path / leaderboard.TABLE).write_text(leaderboard.MARKS[leaderboard.TABLE] + "\n")
    check()
    (tmp_path / leaderboard.BLOCKS).write_text("mine")
    with pytest.raises(UserError, match=leaderboard.BLOCKS):
        check()
