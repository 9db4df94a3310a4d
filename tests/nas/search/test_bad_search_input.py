"""Impossible requests to `nas search`: one line, exit code 2, and no run begun."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.commands.search import _ask, _resumed, add_arguments
from nas.data import DataSpec, load
from nas.latency.budget import Budget
from nas.runs.folder import SPENT, RunFolder
from nas.runs.spent import Spent, spent_of
from nas.runs.unreached import give_up, unreached
from nas.study import load_study
from space import published

STUDY = """
data: {name: road_scenes, size: [48, 64], train_images: 4, validation_images: 1}
budget: 10ms
recipe: {optimizer: adamw, learning_rate: 0.006, epochs: 1, batch_size: 4}
"""
Nas = Callable[..., Any]


@pytest.mark.parametrize("budget", ["0ms", "-3ms", "10 parsecs", "nan", "10", "", "1e999ms"])
def test_texts_that_are_no_budget_are_refused(budget: str, nas: Nas, tmp_path: Path) -> None:
    said = nas("search", "--budget", budget, "--out", str(tmp_path / "run")).refusal()
    assert "10ms" in said
    assert "100fps" in said
    assert not (tmp_path / "run").exists()


def test_an_impossible_folder_for_runs_is_refused_with_advice(
    nas: Nas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("a file")
    said = nas("search", "--budget", "10ms", "--target", "null@cpu:1").refusal()
    assert said.endswith("expected a folder that can be written to, got runs (File exists); give another with --out")


@pytest.mark.parametrize("minutes", ["-5", "an hour", "nan", "1e9", ""])
def test_impossible_minutes_are_refused(minutes: str, nas: Nas) -> None:
    said = nas("search", "--budget", "10ms", f"--minutes={minutes}").refusal()
    assert "--minutes: expected a number of minutes such as 45 or 2.5" in said


def test_a_resumed_run_can_have_other_minutes(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    RunFolder.create(tmp_path / "run", load_study(tmp_path / "study.yaml"))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    _, study = _resumed(parser.parse_args(["--resume", str(tmp_path / "run"), "--minutes", "2.5"]))
    assert study.search.minutes == 2.5


def test_only_a_changed_question_restarts_the_time_and_a_refused_one_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    run = RunFolder.create(tmp_path / "run", load_study(tmp_path / "study.yaml").asking(["10ms", "20ms"]))
    give_up(run, Budget.parse("10ms"), "nothing is inside", searched=True)
    (run.root / SPENT).write_text("seconds: 500\nclosed_minutes: 45\n")
    before = run.question()
    parser = argparse.ArgumentParser()
    add_arguments(parser)

    def asked(*words: str) -> bool:
        """Whether the run has its whole time again."""
        options = parser.parse_args(["--resume", str(run.root), *words])
        assert _ask(run, _resumed(options)[1], options.budgets) == before
        anew = spent_of(run) == Spent()
        run.put_back(before)
        return anew

    for same in ([], ["--frontier"], ["--budget", "50fps"], ["--patience", "5min"], ["--minutes", "60"]):
        assert not asked(*same)
    assert asked("--budget", "15ms")
    assert asked("--budget", "10ms"), "it is tried again"
    assert run.question() == before
    assert list(map(str, unreached(run))) == ["10ms"]
    (run.root / SPENT).unlink()
    without = run.question()
    (run.root / SPENT).write_text("seconds: 1\n")
    run.put_back(without)
    assert not (run.root / SPENT).exists()


def test_a_search_without_a_budget_is_refused(nas: Nas) -> None:
    assert "nas search --budget 10ms" in nas("search").refusal()


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("serch: {}", "did you mean 'search'?"),
        ("search: {seeds: [erfnett]}", "did you mean 'erfnet'?"),
        ("space: {blok: [fpl]}", "did you mean 'block'?"),
        (
            "space: {detail: [both], decoder: [steps]}",
            "study.yaml: space.detail: no network of this space can have",
        ),
        ("space: {head.shuffle: [3]}", "study.yaml: head.shuffle: expected one of [1, 2, 4, 8], got 3 (all "),
        ("target: onnxruntime@gpu", "cuda"),
        ("latency_within: 2", "latency_within: expected 0.1% to 20% of a latency, got 200.00%"),
        ("budget: [10ms", "not valid YAML"),
        ("x: &a [1]\ny: *a", "anchors and aliases"),
        ("search: !!python/object/apply:os.system ['true']", "tags are not accepted"),
        ("search: {finalists: 0}", "finalists"),
        ("search: {finalists: many}", "whole number"),
        ("search: {minutes: -1}", "search.minutes: expected 0 or more, got -1"),
        ("search: {finish_recipes: []}", "search.finish_recipes: expected at least one, got none"),
        ("search: {finish_recipes: [{}, {}]}", "search.finish_recipes: expected each recipe once"),
        ("search: {finish_recipes: [{}, {ohem_probabilty: 0.7}]}", "did you mean 'ohem_probability'?"),
        ("search: {finish_recipes: [{ema_decay: 0.9}], finish_epochs: 0}", "expected finish_epochs above 0"),
    ],
)
def test_faulty_studies_are_refused(wrong: str, expected: str, nas: Nas, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY + wrong)
    said = nas("search", str(file), "--out", str(tmp_path / "run")).refusal()
    assert expected in said
    assert str(file) in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("target: onnxruntime@cpu:9999", "asks for 9999 threads"),
        ("target: onnxruntime:bf16@cpu", "onnxruntime does not run bf16 on cpu"),
        ("target: onnxruntime@cpu\nprecisions: [bf16]", "onnxruntime does not run bf16 on cpu"),
        ("target: torch@cuda:0\nprecisions: [fp32, fp16]", "precisions: expected a target on a CPU"),
    ],
)
def test_a_missing_target_is_refused_before_data_are_read(wrong: str, expected: str, nas: Nas, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY + wrong)
    answer = nas("search", file, "--out", tmp_path / "run")
    assert expected in answer.refusal()
    assert "look    at" not in answer.out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://127.0.0.1:10001", "not through Ray's client or its dashboard"),
        ("http://127.0.0.1:8265", "not through Ray's client or its dashboard"),
        ("jetson", "expected HOST:PORT"),
        ("127.0.0.1:99999", "expected HOST:PORT"),
        ("127.0.0.1:1", "no Ray answers at 127.0.0.1:1"),
        ("nosuch-host.invalid:6379", "no Ray answers at nosuch-host.invalid:6379"),
    ],
)
def test_an_address_without_a_cluster_is_refused_before_a_run_is_made(
    address: str, said: str, nas: Nas, tmp_path: Path
) -> None:
    done = nas("search", "--budget", "10ms", "--out", str(tmp_path / "run"), "--address", address)
    assert said in done.refusal()
    assert not (tmp_path / "run").exists()


def test_a_refused_search_can_be_repeated_after_correction(nas: Nas, tmp_path: Path) -> None:
    out, file = tmp_path / "runs" / "night", tmp_path / "study.yaml"
    assert "onnxruntime" in nas("search", "--budget", "10ms", "--target", "onxruntime@cpu", "--out", out).refusal()
    assert not out.exists()
    file.write_text(STUDY.replace("name: road_scenes,", "name: folder, root: nosuch,").replace(", train_images: 4", ""))
    assert "nosuch" in nas("search", file, "--out", out).refusal()
    assert not out.exists()
    file.write_text(STUDY)
    over = ("--target", "null@cpu:1", "--budget", "0.001ms")
    told = nas("search", file, "--out", out, *over)
    assert re.search(r"the narrowest networks of the space take \d+\.\d+ ms", told.refusal())
    assert "epoch" not in told.out
    assert not out.exists()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("data.yaml", "with data.yaml, which would be lost"),
        ("sources.yaml", "with sources.yaml, which would be lost"),
        ("init.safetensors", "with init.safetensors, which would be lost"),
        ("trials/1/notes.txt", "with trials, which would be lost"),
        ("winner/cup.jpg", "with winner, which would be lost"),
        ("checkpoint.pt", "expected a folder for a run, got"),
        ("classes.txt", "expected a folder for a run, got"),
    ],
)
def test_files_of_the_user_with_the_names_of_run_files_are_left_alone(
    name: str, expected: str, nas: Nas, tmp_path: Path
) -> None:
    out, file = tmp_path / "project", tmp_path / "study.yaml"
    file.write_text(STUDY.replace("name: road_scenes,", "name: folder, root: nosuch,").replace(", train_images: 4", ""))
    for each in ("thesis.txt", name):
        (out / each).parent.mkdir(parents=True, exist_ok=True)
        (out / each).write_text("mine")
    before = files_of(out)
    assert expected in nas("search", file, "--out", out).refusal()
    assert files_of(out) == before


def test_a_refused_run_removes_only_its_own_files(nas: Nas, tmp_path: Path) -> None:
    out, file = tmp_path / "project", tmp_path / "study.yaml"
    file.write_text(STUDY)
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    over = ("--target", "null@cpu:1", "--budget", "0.001ms")
    assert "the narrowest networks" in nas("search", file, "--out", out, *over).refusal()
    assert files_of(out) == {"thesis.txt": b"mine"}


@pytest.mark.slow
def test_a_refused_budget_does_not_stay_in_the_study(nas: Nas, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY + "target: null@cpu:1")
    run = RunFolder.create(tmp_path / "run", load_study(tmp_path / "study.yaml"))
    assert "the narrowest" in nas("search", "--resume", run.root, "--budget", "0.001ms").refusal()
    assert run.study().budget == "10ms"


def test_a_folder_with_a_users_study_is_no_run(nas: Nas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    said = nas("search", "study.yaml", "--out", ".").refusal()
    assert "--out: expected a folder without a study, got . with its study.yaml; give runs/NAME, for example" in said
    for words in (("search", "--resume", "."), ("report", "."), ("search", "study.yaml", "--from", ".")):
        assert "got . with a study but no search; begin one with: nas search study.yaml" in nas(*words).refusal()
    assert files_of(tmp_path) == {"study.yaml": STUDY.encode()}
    run = RunFolder.create(tmp_path / "run", load_study("study.yaml"))
    run.study_path.unlink()  # as if the search was killed at its beginning
    RunFolder.create(run.root, load_study("study.yaml"))
    assert (
        "holds a run already; go on with nas search --resume run"
        in nas("search", "study.yaml", "--out", "run").refusal()
    )


@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        (("10ms", "100fps"), "expected budgets that differ, got 10ms twice"),
        (("10ms", "20ms p90"), "expected budgets of one statistic, got 10ms, 20ms p90"),
        (("10ms", "20"), "cannot read '20' as a budget"),
    ],
)
def test_budgets_that_do_not_go_together_are_refused(
    budgets: tuple[str, ...], expected: str, nas: Nas, tmp_path: Path
) -> None:
    given = [word for budget in budgets for word in ("--budget", budget)]
    assert expected in nas("search", *given, "--out", tmp_path / "run").refusal()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ("budget: 10ms\nbudgets: [10ms, 20ms]", "expected budget or budgets, got both; put 10ms among the budgets"),
        ("", "expected a budget, got none; add budget: 10ms, or budgets: [10ms, 20ms]"),
        (
            "budgets: [10ms, 20ms]\nfrontier: true",
            "frontier: expected one budget, the largest of the frontier, got budgets",
        ),
    ],
)
def test_studies_without_clear_budgets_are_refused(budget: str, expected: str, nas: Nas, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.replace("budget: 10ms", budget))
    assert expected in nas("search", tmp_path / "study.yaml", "--out", tmp_path / "run").refusal()


def test_a_frontier_below_several_budgets_is_refused(
    nas: Nas, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--frontier", "--budget", "10ms", "--budget", "20ms")
    expected = "--frontier: expected one budget, the largest of the frontier, got 10ms, 20ms"
    assert expected in nas("search", *given, "--out", tmp_path / "run").refusal()
    assert not (tmp_path / "run").exists()
    (tmp_path / "study.yaml").write_text(STUDY)
    run = RunFolder.create(tmp_path / "run", load_study(tmp_path / "study.yaml"))
    assert expected in nas("search", "--resume", run.root, *given).refusal()
    run.write_study(run.study().asking(["10ms", "20ms"]))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    _, study = _resumed(parser.parse_args(["--resume", str(run.root), "--frontier"]))
    assert (study.budgets, study.frontier) == (("10ms", "20ms"), False)
    assert "this run has several budgets already, and keeps 10ms, 20ms" in capsys.readouterr().out


def test_further_budgets_join_those_of_a_run_for_several_budgets(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    one = load_study(tmp_path / "study.yaml")
    assert one.asking_also(["8ms"]).budget == "8ms", "another one, where there is one"
    two = one.asking_also(["20ms", "100fps"])
    assert (two.budget, two.budgets) == ("", ("10ms", "20ms"))
    assert two.asking_also(["15ms", "10ms"]).budgets == ("10ms", "15ms", "20ms")
    assert two.asking(["8ms"]).budgets == ()


def test_the_word_all_means_every_published_network(nas: Nas, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY + "search: {seeds: [all]}\n")
    study = load_study(tmp_path / "study.yaml")
    assert study.search.seeds == published()
    assert study.search.company == ()
    run = RunFolder.create(tmp_path / "run", study)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = ["--resume", str(run.root), "--company"]
    assert _resumed(parser.parse_args([*words, "all"]))[1].search.company == published()
    assert _resumed(parser.parse_args([*words, "regseg, erfnet"]))[1].search.company == ("regseg", "erfnet")
    assert "no published network is called 'refnet'" in nas("search", *words, "refnet").refusal()


def test_a_budget_without_a_unit_in_a_study_is_refused_as_a_number(nas: Nas, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY.replace("budget: 10ms", "budget: 10"))
    said = nas("search", tmp_path / "study.yaml").refusal()
    assert ": budget: expected text, got 10, which YAML reads as a number; write '10' for text" in said


def test_a_missing_study_is_refused(nas: Nas, tmp_path: Path) -> None:
    assert "missing.yaml" in nas("search", str(tmp_path / "missing.yaml")).refusal()


def test_a_missing_run_is_refused(nas: Nas, tmp_path: Path) -> None:
    assert "study.yaml" in nas("search", "--resume", str(tmp_path / "nothing")).refusal()


def test_a_resumed_run_refuses_another_target(nas: Nas, tmp_path: Path) -> None:
    assert "leave out target" in nas("search", "--resume", str(tmp_path), "--target", "torch@cpu").refusal()


def test_a_folder_that_holds_a_run_is_not_overwritten(nas: Nas, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "trials").mkdir()
    said = nas("search", str(tmp_path / "study.yaml"), "--out", str(tmp_path)).refusal()
    assert f"--resume {tmp_path}" in said


def test_a_truncated_picture_is_named_before_any_timing(nas: Nas, tmp_path: Path) -> None:
    scenes = load(DataSpec(size=(48, 64), train_images=4, validation_images=1))
    for split, pairs in (("train", scenes.train), ("val", scenes.validation)):
        for kind, files in (("images", pairs.images), ("labels", pairs.labels)):
            folder = tmp_path / "data" / split / kind
            folder.mkdir(parents=True)
            for number, file in enumerate(files):
                (folder / f"{number}{file.suffix}").write_bytes(file.read_bytes())
    (tmp_path / "data" / "classes.txt").write_text("\n".join(scenes.classes) + "\n")
    broken = sorted((tmp_path / "data" / "train" / "images").iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:500])
    file = tmp_path / "study.yaml"
    file.write_text(
        STUDY.replace("name: road_scenes,", f"name: folder, root: {tmp_path / 'data'},").replace(
            ", train_images: 4, validation_images: 1", ""
        )
    )
    said = nas("search", str(file), "--target", "torch@cpu:1", "--out", str(tmp_path / "run")).refusal()
    assert str(broken) in said
