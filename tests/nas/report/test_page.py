"""The page: one well-formed, self-contained file that escapes all texts that it shows."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from nas.cli import main
from nas.report import Summary, summarize, write_report
from nas.report.page import write_summary
from nas.runs.folder import RunFolder
from space import Architecture, UserError, strict

EMPTY = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Collects the contents of a page, and refuses tags that do not close in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.alternatives: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]
        self.alternatives += [value or "" for name, value in attrs if name == "alt"]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def written(whole: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run with its report; tests must not change it."""
    run = RunFolder(tmp_path_factory.mktemp("written") / whole.root.name)
    shutil.copytree(whole.root, run.root)
    write_report(run)
    return run


@pytest.fixture(scope="module")
def page(written: RunFolder) -> str:
    return (written.root / "report.html").read_text("utf-8")


def test_the_page_is_well_formed_and_self_contained(page: str) -> None:
    reader = Reader(page)
    assert reader.sources
    assert all(source.startswith("data:image/") for source in reader.sources)
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert "url(" not in page
    assert "@import" not in page


def test_names_are_shown_as_text_and_never_as_markup(page: str) -> None:
    reader = Reader(page)
    assert "seed <script>alert(1)</script>" in reader.text
    assert "wall <b>" in reader.text
    assert "run <i>1" in reader.text
    assert "a noisy & busy host" in reader.text


def test_text_in_attributes_is_escaped(full: RunFolder, tiny_data: Path) -> None:
    for kind in ("images", "labels"):
        (tiny_data / "val" / kind / "0.png").rename(tiny_data / "val" / kind / '"<&>.png')
    assert '"<&>.png: prediction' in Reader(write_report(full).read_text("utf-8")).alternatives


def test_names_may_hold_characters_with_a_meaning_in_charts(
    made: Any, architecture: Callable[[float], Architecture]
) -> None:
    made.trial(1, "cost $x_1$ 漢字 \a", "random", architecture(0.1), 9.0, (0.1, 0.2, 0.3))
    reader = Reader(write_report(made.run).read_text("utf-8"))
    assert "cost $x_1$ 漢字 \ufffd: 9.00 ms, 30.0% mIoU (finished)" in reader.text


def test_charts_have_the_colours_of_the_readers_theme(page: str) -> None:
    charts = re.findall("<svg.*?</svg>", page, re.S)
    light, dark, printed = re.findall(r":root \{ (--.*?) \}", page)
    assert len(charts) == 3
    assert not [chart for chart in charts if "#" in chart]
    used = set(re.findall(r"var\((--[a-z-]+)\)", page))
    assert used >= {"--winner", "--seed", "--ground", "--ink"}
    for theme in (light, dark, printed):
        assert used <= {each.partition(":")[0].strip() for each in theme.split(";")}
    assert "prefers-color-scheme: dark" in page


def test_the_page_shows_the_figures_of_the_winner(page: str, written: RunFolder) -> None:
    text = Reader(page).text
    for words in (
        "60.1 %",
        "9.77 ms",
        "passed",
        "guided 1 ★",
        "10ms",
        "75.0",
        "25.0",
        "an invented one",
        "loss of nan",
    ):
        assert words in text
    summary = strict.parse((written.root / "report.yaml").read_text("utf-8"), Summary, "report.yaml")
    assert summary.winner is not None
    assert f"{summary.winner.certificate.parameters:,} parameters" in text


def test_the_page_shows_picture_label_and_prediction_of_three_images(page: str) -> None:
    assert page.count("data:image/jpeg;base64,") == 9


def test_the_page_draws_each_candidate_and_the_budget(page: str) -> None:
    text = Reader(page).text
    assert "budget 10ms" in text
    for name in ("guided 1", "random 2", "erfnet"):
        assert f"{name}: " in text  # the words of its point in the picture
    assert "random 3: 25.00 ms (infeasible)" in text
    assert "too few" in text


def test_the_same_run_gives_the_same_bytes(page: str, full: RunFolder) -> None:
    assert write_report(full).read_text("utf-8") == page
    figures = (full.root / "report.yaml").read_bytes()
    assert write_report(full).read_text("utf-8") == page
    assert (full.root / "report.yaml").read_bytes() == figures
    assert not list(full.root.glob(".*tmp"))


def test_a_report_without_its_data_set_names_the_missing_predictions(full: RunFolder, tiny_data: Path) -> None:
    shutil.rmtree(tiny_data)
    reader = Reader(write_report(full).read_text("utf-8"))
    assert "The winner's predictions cannot be shown" in reader.text
    assert "img" not in reader.tags
    assert "60.1 %" in reader.text


def test_a_report_without_weights_names_the_missing_predictions(full: RunFolder) -> None:
    (full.winner / "weights.safetensors").write_bytes(b"damaged")
    assert "The winner's predictions cannot be shown" in Reader(write_report(full).read_text("utf-8")).text


def test_the_page_of_an_interrupted_run_shows_its_candidates(full: RunFolder) -> None:
    shutil.rmtree(full.winner)
    reader = Reader(write_report(full).read_text("utf-8"))
    assert "No winner yet" in reader.text
    assert "7 candidates proposed, 6 trained" in reader.text
    assert "best guided" in reader.text
    assert "Certificate" not in reader.text


def test_a_run_that_has_just_begun_has_a_report(made: Any) -> None:
    assert "0 candidates proposed" in Reader(write_report(made.run).read_text("utf-8")).text


def test_the_command_prints_headline_leaderboard_and_page(full: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(full.root)]) == 0
    printed = capsys.readouterr().out
    reading, headline = printed.splitlines()[:2]
    assert reading == f"reading {full.root}"
    assert headline.startswith("guided 1: 60.1% mIoU in 9.77 ms")
    assert "published, own width" in printed
    assert str(full.root / "report.html") in printed


def test_a_page_can_be_written_to_another_folder(
    full: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    (full.root / "report.yaml").unlink(missing_ok=True)
    assert main(["report", str(full.root), "--out", str(out)]) == 0
    assert {each.name for each in out.iterdir()} == {"report.html", "report.yaml"}
    assert not (full.root / "report.yaml").exists()
    assert main(["report", str(full.root), "--out", str(out)]) == 0, "what it left is its to replace"
    for name in ("report.html", "report.yaml"):
        ours = (out / name).read_text()
        (out / name).write_text("mine: too")
        assert main(["report", str(full.root), "--out", str(out)]) == 2
        expected = f"expected no {out / name}, or one that this version of `nas report` wrote, got another file"
        assert expected in capsys.readouterr().err
        assert (out / name).read_text() == "mine: too"
        (out / name).write_text(ours)
    assert main(["report", str(full.root), "--out", str(tmp_path / "night.html")]) == 2
    assert f"night.html; give {tmp_path / 'night'}, say" in capsys.readouterr().err


def test_a_file_that_appears_while_a_page_is_made_is_replaced_only_in_a_runs_folder(
    full: RunFolder, tmp_path: Path
) -> None:
    summary, out = summarize(full), tmp_path / "mine"
    for name in ("report.html", "report.yaml"):
        write_summary(full, summary, out)
        (out / name).write_text("mine")
        with pytest.raises(UserError, match=f"{name}: expected none still"):
            write_summary(full, summary, out)
        assert (out / name).read_text() == "mine"
        (out / name).unlink()
        (full.root / name).write_text("of an earlier version")
    assert write_summary(full, summary, full.root).read_text() == write_report(full).read_text()


def test_the_table_of_a_read_only_run_is_printed_before_the_error(
    full: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    (full.root / "report.html").mkdir()
    assert main(["report", str(full.root)]) == 2
    told = capsys.readouterr()
    assert "published, own width" in told.out
    assert "expected a folder that the page can be written to: " in told.err


def test_the_command_refuses_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "expected a run's folder" in capsys.readouterr().err
