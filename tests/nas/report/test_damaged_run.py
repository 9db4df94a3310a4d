"""A run for several budgets with a damaged, cut or missing file: the error names the file, and no network without a
certificate counts as a winner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import space
from nas.data.fingerprint import Fingerprint
from nas.latency.budget import Budget
from nas.latency.estimates.table import LatencyTable
from nas.report import summarize
from nas.report.page import write_report
from nas.runs.data_seen import DataSeen, data_seen
from nas.runs.earlier import Earlier, EarlierTrial, read_earlier
from nas.runs.folder import Order, RunFolder, Sources
from nas.runs.initial_weights import InitialWeights, initial_weights
from nas.runs.table import BegunWith, hold_to_table
from nas.runs.trained import load_trained
from nas.runs.unreached import ask_again, reachable, unreached
from space import UserError, strict

Damage = Callable[[bytes], bytes | None]
DAMAGES: Mapping[str, Damage] = {
    "missing": lambda data: None,
    "empty": lambda data: b"",
    "half written": lambda data: data[: len(data) // 2],
    "without its first line": lambda data: data.partition(b"\n")[2],
    "not text": lambda data: data[:10] + b"\xff\xfe\0" + data[10:],
}
OF_WINNER = ("architecture.yaml", "weights.safetensors", "certificate.yaml")


def damage(file: Path, kind: str) -> None:
    left = DAMAGES[kind](file.read_bytes())
    if left is None:
        file.unlink()
    else:
        file.write_bytes(left)


def refused(read: Callable[[], object]) -> str:
    """The one line with which something is refused."""
    with pytest.raises(UserError) as error:
        read()
    assert "\n" not in str(error.value)
    return str(error.value)


OF_RUN: Mapping[str, tuple[object, Callable[[RunFolder], object]]] = {
    "order.yaml": (Order(ahead=2), lambda run: run.hold_to_order(Order(ahead=2))),
    "sources.yaml": (Sources(runs=("/runs/one", "/runs/two")), RunFolder.sources),
    "earlier.yaml": (
        Earlier(trials=(EarlierTrial(run="one", architecture=space.load("ndnet29-fcn32"), miou=0.4),)),
        read_earlier,
    ),
    "table.yaml": (
        BegunWith(
            table=LatencyTable(
                target="torch@cpu:1",
                height=64,
                width=96,
                milliseconds={"add count": 0.01},
                unit_milliseconds={},
                networks=150,
                seconds=3.0,
                error=0.08,
                environment={},
            )
        ),
        lambda run: hold_to_table(run, lambda: None),
    ),
    "data.yaml": (
        DataSeen(
            fingerprint=Fingerprint(
                classes=("ground", "sky"),
                train_images="0",
                train_labels="1",
                validation_images="2",
                validation_labels="3",
            )
        ),
        lambda run: data_seen(run.root),
    ),
    "init.yaml": (InitialWeights(file="resnet18.pth", sha256="00" * 32), lambda run: initial_weights(run.root)),
}
"""What else a run keeps of its beginning, and what reads it."""


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind != "missing"])
@pytest.mark.parametrize("name", OF_RUN)
def test_damaged_files_from_the_beginning_of_a_run_are_named(frontier: RunFolder, name: str, kind: str) -> None:
    value, read = OF_RUN[name]
    file = frontier.root / name
    file.write_text(strict.dump(value), "utf-8")
    read(frontier)
    damage(file, kind)
    assert str(file) in refused(lambda: read(frontier))


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_certificate_is_named_and_a_missing_one_means_no_winner(frontier: RunFolder, kind: str) -> None:
    file = frontier.root / "winners" / "5ms" / "certificate.yaml"
    damage(file, kind)
    if kind == "missing":
        summary = summarize(frontier)
        assert [each.winner and each.winner.name for each in summary.answers] == [None, None, "large seed"]
        assert summary.going.steps, "it is not over"
        return
    assert str(file) in refused(lambda: summarize(frontier))
    assert str(file) in refused(lambda: load_trained(str(file.parent), None))
    assert load_trained(str(frontier.root / "winners" / "10ms"), None).labelling is not None


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_architecture_of_a_winner_is_named(frontier: RunFolder, kind: str) -> None:
    file = frontier.root / "winners" / "10ms" / "architecture.yaml"
    damage(file, kind)
    for read in (lambda: summarize(frontier), lambda: load_trained(str(file.parent), None)):
        assert str(file.parent) in refused(read)


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_report_is_written_although_the_weights_of_a_winner_are_damaged(frontier: RunFolder, kind: str) -> None:
    file = frontier.root / "winners" / "10ms" / "weights.safetensors"
    damage(file, kind)
    assert "weights.safetensors" in refused(lambda: load_trained(str(file.parent), None).network(3))
    if kind == "half written":  # once, since a page takes a second
        page = write_report(frontier).read_text("utf-8")
        assert "The winner&#39;s predictions cannot be shown: " in page
        assert page.count("data:image/jpeg;base64,") == 9, "the other winner's are"


def test_a_missing_winner_is_certified_again(frontier: RunFolder) -> None:
    """A winner is missing when a process was killed between the moves that put its folder in place."""
    folder = frontier.root / "winners" / "5ms"
    folder.rename(folder.with_name(".5ms.previous"))
    summary = summarize(frontier)
    assert [each.winner and each.winner.name for each in summary.answers] == [None, None, "large seed"]
    assert summary.going.steps
    told = refused(lambda: load_trained(str(frontier.root), None))
    assert told.endswith(f"give one of {frontier.root / 'winners' / '10ms'}")


def test_a_certificate_of_another_budget_does_not_end_a_search(frontier: RunFolder) -> None:
    small, large = (frontier.root / "winners" / name for name in ("5ms", "10ms"))
    for name in OF_WINNER:
        (small / name).write_bytes((large / name).read_bytes())
    summary = summarize(frontier)
    assert summary.answers[1].winner is not None
    assert summary.answers[1].winner.timing.verdict == "FAIL"
    assert summary.going.steps, "what is certified for 10ms is no answer for 5ms"


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_list_of_unreached_budgets_is_named(frontier: RunFolder, kind: str) -> None:
    """Without the list all budgets are looked at again."""
    file = frontier.root / "unreached.yaml"
    damage(file, kind)
    study = frontier.study()
    if kind == "missing":
        assert reachable(frontier, study) == study.asked
        assert summarize(frontier).going.steps
        return
    for read in (
        lambda: summarize(frontier),
        lambda: reachable(frontier, study),
        lambda: ask_again(frontier, study.asked),
    ):
        assert str(file) in refused(read)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("budget: 1ms", "budget: a lot"),
        ("searched: false", "searched: false\n  number: -1"),
        ("searched: false", "searched: false\n  repeats: -1"),
        ("searched: false", "searched: false\n  repeats: 9000000000000000000"),
    ],
)
def test_numbers_that_no_search_writes_are_named_by_their_line(frontier: RunFolder, was: str, now: str) -> None:
    file = frontier.root / "unreached.yaml"
    text = file.read_text("utf-8")
    assert was in text
    file.write_text(text.replace(was, now), "utf-8")
    assert refused(lambda: unreached(frontier)).startswith(f"{file}:2: ")


def test_a_list_that_gives_up_all_budgets_is_refused_with_advice(frontier: RunFolder) -> None:
    file = frontier.root / "unreached.yaml"
    text = file.read_text("utf-8")
    entry = text.partition("\n")[2]
    file.write_text(text + entry.replace("1ms", "5ms") + entry.replace("1ms", "10ms"), "utf-8")
    told = refused(lambda: summarize(frontier))
    assert told.startswith(f"{file}: expected a budget among 1ms, 5ms, 10ms that was not given up, got none; ")
    assert told.endswith(f"nas search --resume '{frontier.root}' --budget '10ms'"), "its name has a space"
    ask_again(frontier, [Budget.parse("10ms")])
    assert [str(budget) for budget in reachable(frontier, frontier.study())] == ["10ms"]
