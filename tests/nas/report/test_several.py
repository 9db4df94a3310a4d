"""Comparison of several runs: how far winners are above others, as means over seeds, and runs without such a mean."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.report import Summary, summarize
from nas.report.chance import expected_best, mean_of
from nas.report.several import Several, several_table, summarize_several
from nas.runs.alike import require_alike
from nas.runs.folder import RunFolder
from nas.runs.trial import PROGRESS, Progress
from space import UserError, strict


def test_the_best_of_several_draws_is_expected_exactly() -> None:
    assert expected_best([0.3, 0.1, 0.2], 1) == pytest.approx(0.2)
    assert expected_best([0.1, 0.2, 0.3], 2) == pytest.approx((0.2 + 0.3 + 0.3) / 3)
    assert expected_best([0.1, 0.3], 2) == expected_best([0.1, 0.3], 5) == 0.3


def test_the_interval_of_a_mean_is_students() -> None:
    """The deviation of 1 and 3 is the root of 2, that of their mean 1, and t at one degree of freedom 12.706."""
    found = mean_of([1.0, 3.0])
    assert found is not None
    assert (found.mean, found.half, found.count) == (2.0, pytest.approx(12.706), 2)
    only = mean_of([1.0])
    assert only is not None
    assert only.half is None
    assert mean_of([]) is None


def test_winners_are_compared_with_others_after_equal_training(two_seeds: list[RunFolder]) -> None:
    require_alike(two_seeds)
    several = summarize_several([summarize(each) for each in two_seeds])
    scaled, own, random = several.above
    assert [(each.network, each.above) for each in scaled.runs] == [
        ("erfnet x0.1", pytest.approx(0.1)),
        ("erfnet x0.1", pytest.approx(0.2)),
    ]
    assert scaled.mean is not None
    assert scaled.mean.mean == pytest.approx(0.15)
    assert scaled.mean.half == pytest.approx(12.706 * 0.05)
    assert [(each.network, each.above) for each in own.runs] == [("fast", pytest.approx(0.15))] * 2
    assert [(each.network, each.above) for each in random.runs] == [("", None)] * 2, "it is in the midst of a rung"
    assert strict.parse(strict.dump(several), Several, "several.yaml") == several
    lines = several_table(several).splitlines()
    assert lines[3].split()[:8] == ["10ms", "above", "the", "published,", "scaled", "+15.0", "63.5", "2"]


def test_runs_of_different_studies_have_no_mean(two_seeds: list[RunFolder], tmp_path: Path) -> None:
    first, second = two_seeds[0], RunFolder(shutil.copytree(two_seeds[1].root, tmp_path / "seed1"))
    study = second.study()
    recipe, plan = replace(study.recipe, learning_rate=0.1), replace(study.search, random_trials=7)
    for other, words in (
        (replace(study, budget="8ms"), "with another budget: 10ms and 8ms; report"),
        (
            replace(study, target="onnxruntime@cpu:2", recipe=recipe, search=plan),
            "target: .* and .*; recipe.learning_rate: 0.006 and 0.1; search.random_trials: 2 and 7; report",
        ),
    ):
        second.write_study(other)
        with pytest.raises(UserError, match=words) as refused:
            require_alike([first, second])
        assert "--frontier" not in str(refused.value)
    with pytest.raises(UserError, match="expected each run once"):
        require_alike([first, first])
    shutil.rmtree(second.winner)
    with pytest.raises(UserError, match="got seed1 without a winner"):
        summarize_several([summarize(first), summarize(second)])


def test_finishes_of_different_lengths_are_said_not_to_compare(two_seeds: list[RunFolder], tmp_path: Path) -> None:
    """A time limit leaves some runs fewer epochs than others."""
    equal = summarize_several([summarize(each) for each in two_seeds])
    assert equal.finish_epochs == (3, 3)
    assert "finishes" not in several_table(equal)
    short = RunFolder(shutil.copytree(two_seeds[1].root, tmp_path / "seed1"))
    for trial in (*short.trials(), *short.company()):
        history = short.progress(trial, "finish").history
        if history:
            shorter = Progress(history=tuple(replace(each, epochs=2) for each in history[:2]))
            (short.phase_path(trial, "finish") / PROGRESS).write_text(strict.dump(shorter))
    require_alike([two_seeds[0], short])
    several = summarize_several([summarize(two_seeds[0]), summarize(short)])
    assert several.finish_epochs == (3, 2)
    said = several_table(several).splitlines()[-1]
    assert said.startswith("The finishes of these runs differ in length (3 epochs in seed0, 2 epochs in seed1):")


def test_two_runs_with_different_budgets_are_refused_with_options_that_align_them(
    two_seeds: list[RunFolder], tmp_path: Path
) -> None:
    runs = [RunFolder(shutil.copytree(each.root, tmp_path / each.root.name)) for each in two_seeds]
    runs[0].write_study(runs[0].study().asking(["2.1ms p90", "10ms p90"]))
    runs[1].write_study(runs[1].study().asking(["2ms p90", "10ms p90"]))
    with pytest.raises(UserError, match=r"--frontier chose .*: --budget '2.1ms p90' --budget '10ms p90'$"):
        require_alike(runs)


def test_a_file_that_appears_while_runs_are_compared_is_not_replaced(
    nas: Any, two_seeds: list[RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "seeds.yaml"

    def compared(summaries: Sequence[Summary]) -> Several:
        out.write_text("mine")
        return summarize_several(summaries)

    monkeypatch.setattr("nas.report.several.summarize_several", compared)
    answer = nas("report", *(each.root for each in two_seeds), "--out", out)
    assert f"--out: expected a new file that ends in .yaml, got {out}" in answer.refusal()
    assert "above the published, own width" in answer.out, "the comparison is printed all the same"
    assert out.read_text() == "mine"


@pytest.mark.slow
def test_the_command_prints_and_writes_the_comparison(nas: Any, two_seeds: list[RunFolder], tmp_path: Path) -> None:
    folders, out = [each.root for each in two_seeds], tmp_path / "seeds.yaml"
    answer = nas("report", *folders, "--out", out).done()
    assert "above the published, own width" in answer.out
    assert strict.parse(out.read_text(), Several, "seeds.yaml").runs == ("seed0", "seed1")
    assert "--out: expected a new file" in nas("report", *folders, "--out", out).refusal()
    assert "cannot make the folder" in nas("report", *folders, "--out", out / "below.yaml").refusal()
    told = nas("report", folders[0], "--out", tmp_path / "one.yaml").refusal()
    assert "--out: expected a folder for the page of one run" in told
