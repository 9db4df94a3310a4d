"""The choice of the default target, on invented speeds and once on those of this machine."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from nas.errors import ExportError, TargetError
from nas.latency import default, runtimes
from nas.latency.default import Speed
from nas.latency.machine import device, device_key
from nas.latency.target import Target
from nas.latency.worker.replies import WorkerError


def speed(milliseconds: float, within: float = 0.05, *, flagged: bool = False) -> Speed:
    low, high = milliseconds * (1 - within), milliseconds * (1 + within)
    return Speed(milliseconds=milliseconds, low=low, high=high, flagged=flagged)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """Makes only the given targets ready."""

    def make(*ready: str) -> None:
        monkeypatch.setattr(default, "_missing", lambda target: None if str(target) in ready else "pip install it")

    return make


def test_the_fastest_target_is_chosen_and_timed_once(only) -> None:
    only("onnxruntime@cpu", "openvino@cpu")
    asked: list[str] = []

    def measure(target: Target) -> Speed:
        asked.append(str(target))
        return speed(5.0 if target.runtime == "openvino" else 8.0)

    choice = default.choose(measure)
    assert choice.target == "openvino@cpu"
    assert "5.00 ms, onnxruntime@cpu 8.00 ms" in choice.reason
    assert default.choose(measure) == choice
    assert asked == ["onnxruntime@cpu", "openvino@cpu"]


def test_a_kept_default_that_is_not_ready_is_chosen_anew(only) -> None:
    only("onnxruntime@cpu", "openvino@cpu")
    choice = default.choose(lambda target: speed(5.0))
    (file,) = device_key.folder("defaults").iterdir()
    whole = file.read_text()
    for other in ("nothing@cpu", "torch@cpu", "onnxruntime@cpu:0", "''"):
        file.write_text(whole.replace(choice.target, other, 1))
        assert default.known() is None
    assert default.choose(lambda target: speed(5.0)) == choice
    assert file.read_text() == whole


@pytest.mark.parametrize(("cpu", "found"), [("A Processor @ 2 GHz", True), ("aarch64", False)])
def test_a_container_of_another_name_keeps_the_default_if_its_processor_is_known(
    cpu: str, found: bool, only, monkeypatch: pytest.MonkeyPatch
) -> None:
    only("onnxruntime@cpu", "openvino@cpu")
    monkeypatch.setattr(device, "cpu_model", lambda: cpu)
    choice = default.choose(lambda target: speed(5.0))
    monkeypatch.setattr(platform, "node", lambda: "another")
    assert default.known() == (choice if found else None)


@pytest.mark.parametrize(("within", "kept"), [(0.6, False), (0.1, True)])
def test_a_choice_on_a_busy_machine_is_kept_only_if_intervals_are_apart(
    within: float, kept: bool, only, capsys: pytest.CaptureFixture[str]
) -> None:
    only("onnxruntime@cpu", "openvino@cpu")
    busy = {"onnxruntime": speed(8.0), "openvino": speed(5.0, within, flagged=True)}
    quiet = {"onnxruntime": speed(4.0), "openvino": speed(5.0)}
    assert default.choose(lambda target: busy[target.runtime]).target == "openvino@cpu"
    assert ("openvino@cpu is used this time" in capsys.readouterr().err) != kept
    again = default.choose(lambda target: quiet[target.runtime])
    assert again.target == ("openvino@cpu" if kept else "onnxruntime@cpu")


@pytest.mark.parametrize("kind", [WorkerError, ExportError, TargetError])
def test_a_target_that_fails_is_left_out(kind: type[Exception], only, capsys: pytest.CaptureFixture[str]) -> None:
    only("onnxruntime@cpu", "openvino@cpu")

    def measure(target: Target) -> Speed:
        if target.runtime == "openvino":
            raise kind("Traceback (most recent call last):\n  in it\nRuntimeError: no kernel")
        return speed(8.0)

    assert default.choose(measure).target == "onnxruntime@cpu"
    assert "left out: openvino@cpu: RuntimeError: no kernel" in capsys.readouterr().err.splitlines()

    def killed(target: Target) -> Speed:
        raise WorkerError("was killed by signal 9", ended=True)

    next(device_key.folder("defaults").iterdir()).unlink()
    with pytest.raises(WorkerError, match="signal 9"):
        default.choose(killed)


def test_the_first_of_two_equally_fast_targets_is_chosen() -> None:
    assert default.judge({"onnxruntime@cpu": 5.1, "openvino@cpu": 5.0}).target == "onnxruntime@cpu"
    assert default.judge({"onnxruntime@cpu": 5.2, "openvino@cpu": 5.0}).target == "openvino@cpu"


def test_a_single_ready_target_is_chosen_untimed_and_the_reason_names_the_missing_library(only) -> None:
    only("onnxruntime@cpu")
    asked: list[Target] = []
    choice = default.choose(lambda target: asked.append(target) or speed(1.0))
    assert not asked
    assert choice.target == "onnxruntime@cpu"
    assert "openvino@cpu is not ready (pip install it)" in choice.reason


def test_a_gpu_comes_before_the_cpu_and_pytorch_last(only) -> None:
    only("cudagraph:fp16@cuda:0", "onnxruntime@cpu", "openvino@cpu")
    assert default.choose(lambda target: speed(1.0)).target == "cudagraph:fp16@cuda:0"
    only()
    assert default.choose(lambda target: speed(1.0)).target == "torch@cpu"


@pytest.mark.slow
def test_this_machines_default_is_ready() -> None:
    target = default.default_target()
    assert runtimes.load(target).available(target) is None


def test_a_library_that_is_broken_in_one_precision_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A precision that the processor lacks is not tried, so that no library is blamed for it."""
    monkeypatch.setattr(runtimes, "broken", lambda target: "lost" if str(target) == "openvino@cpu" else None)
    default._print_broken()
    assert capsys.readouterr().err.splitlines() == ["left out: openvino: lost"]
