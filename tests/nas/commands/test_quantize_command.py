"""`nas quantize`: the kept form, its certificate, and refused requests."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from nas import cli
from nas.commands.quantize import table_of
from nas.data import DataSpec, load
from nas.latency import parse_target
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.latency.worker.session import build
from nas.quantization.forms import Form
from nas.quantization.scoring import FormScores
from nas.quantization.shipping import deployed_in_half, deployed_on
from nas.quantization.verdicts import Loss, TimedForm
from nas.runs import zoo
from nas.runs.certificate import ComparedForm, read_certificate
from nas.runs.labelling import Labelling, metadata
from nas.runs.winner import Certification, Finished, write_winner
from nas.training.evaluation import evaluate
from nas.training.scores import Scores
from nas.training.weights import save_weights
from space import Architecture, strict
from space.errors import UserError
from space.network import Network
from space.scale import scale_width

SIZE = (48, 64)


@pytest.fixture(scope="module")
def trained(shallow: Callable[[str], Architecture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with some weights, as `nas train` leaves it."""
    folder = tmp_path_factory.mktemp("trained")
    architecture = scale_width(shallow("ndnet29-fcn32"), 0.25)
    torch.manual_seed(0)
    network = architecture.build(11)
    dataset = load(DataSpec(size=SIZE, train_images=4, validation_images=3))
    (folder / "architecture.yaml").write_text(architecture.to_yaml())
    save_weights(folder / "weights.safetensors", network.state_dict(), metadata(architecture, Labelling.of(dataset)))
    return folder


@pytest.fixture(scope="module")
def network(shallow: Callable[[str], Architecture]) -> Network:
    """An untrained network whose activations have the magnitude of a trained one's."""
    return build(scale_width(shallow("ndnet29-fcn32"), 0.25), None, 11)  # type: ignore[return-value]


@pytest.mark.slow
def test_the_kept_form_is_certified_beside_all_compared_forms(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "quantized"
    words = ["--target", "onnxruntime@cpu:1", "--images", "2", "--within", "20%", "--patience", "0s"]
    code = cli.main(["quantize", str(trained), *words, "--budget", "1000ms", "--out", str(out)])
    told = capsys.readouterr()
    assert code == 0, told.err
    certificate = read_certificate(out)
    forms = [each.form for each in certificate.compared]
    assert forms[0] == "onnxruntime@cpu:1"
    assert [form.split(" ")[0] for form in forms[1:]] == ["onnxruntime:int8@cpu:1"] * (len(forms) - 1)
    (kept,) = [each for each in certificate.compared if each.verdict == "kept"]
    assert certificate.form == kept.form
    assert certificate.miou == kept.miou
    assert certificate.latency.p50_milliseconds == kept.p50_milliseconds
    assert re.search(rf"^{re.escape(kept.form)} +{kept.p50_milliseconds:.2f}", told.out, re.M)
    assert certificate.precision == parse_target(certificate.latency.target).precision
    whole = certificate.compared[0]
    assert kept is whole or kept.ci_high_milliseconds < whole.ci_low_milliseconds
    for each in certificate.compared:
        assert each is kept or each.form not in certificate.form
        assert (
            kept is certificate.compared[0] or kept.ci_high_milliseconds < certificate.compared[0].ci_low_milliseconds
        )
        assert re.search(rf"^{re.escape(each.form)} .*{re.escape(each.verdict)}", told.out, re.M)
    model = (out / "model.onnx").read_bytes()
    assert certificate.sha256["model.onnx"] == hashlib.sha256(model).hexdigest()
    image = np.zeros((1, 3, *SIZE), dtype=np.float32)
    (labels,) = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"image": image})
    assert labels.shape == (1, *SIZE)


@pytest.mark.slow
def test_a_certificate_holds_the_number_of_fine_tuning_epochs(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "quantized"
    words = ["--target", "onnxruntime@cpu:1", "--images", "2", "--within", "20%", "--patience", "0s"]
    tuning = ["--points", "0", "--epochs", "2", "--device", "cpu"]
    assert cli.main(["quantize", str(trained), *words, *tuning, "--out", str(out)]) == 0, capsys.readouterr().err
    certificate = read_certificate(out)
    assert certificate.fine_tuned_epochs == (2 if "fine-tuned for 2 epochs" in certificate.form else 0)
    before, after = (load_file(folder / "weights.safetensors") for folder in (trained, out))
    same = all(torch.equal(value, after[name]) for name, value in before.items())
    assert same == (certificate.fine_tuned_epochs == 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--points", "many"], "--points: expected points of mIoU"),
        (["--images", "0"], "--images: expected 1 to 300, got 0; leave it out for 100"),
        (["--epochs", "-1"], "--epochs: expected 0 or more"),
        (["--epochs", "1", "--recipe", "quik"], "did you mean 'quick'"),
        (["--target", "torch@cpu:1"], "reads ONNX graphs"),
        (["--target", "onnxruntime:bf16@cpu"], "onnxruntime does not run bf16 on cpu"),
        (["--target", "onnxruntime@ssh:board"], "scored on this machine only"),
    ],
)
def test_impossible_requests_are_refused(
    words: list[str], message: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["quantize", str(trained), *words, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def timed_form(target: str, milliseconds: float, miou: float, *flagged: str) -> TimedForm:
    latency = Latency(
        p50_milliseconds=milliseconds, p90_milliseconds=milliseconds, p99_milliseconds=milliseconds,
        ci_low_milliseconds=milliseconds, ci_high_milliseconds=milliseconds, samples=40, ratio=milliseconds,
        ratio_low=milliseconds, ratio_high=milliseconds, reference_milliseconds=1.0, flagged=flagged,
        raw_p50_milliseconds=milliseconds, target=target, height=48, width=64, scope="nothing",
    )  # fmt: skip
    scores = FormScores(scores=Scores(miou=miou, class_iou=(miou,), pixel_accuracy=miou), same_labels=1.0)
    return TimedForm(form=Form(target=parse_target(target), graph=b""), latency=latency, scored=scores)


def test_the_table_lists_every_form_including_refused_ones() -> None:
    whole, half = timed_form("openvino@cpu:1", 2.0, 0.5), timed_form("openvino:bf16@cpu:1", 1.0, 0.50001, "a neighbour")
    refused = {"openvino:int8@cpu:1 (convolutions)": "RuntimeError: no kernel " + "that fits " * 30}
    lines = table_of([whole, half], half, Loss(miou=0.5, points=0.5), refused).splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == [*map(str, (half.form, whole.form)), *refused, "", lines[-1]]
    assert re.search(r"bf16@cpu:1 +1\.00\? +50\.00 +0\.00 +100\.00 +kept$", lines[2])
    assert re.search(
        r"\(convolutions\) +- +- +- +- +left out: RuntimeError: no kernel that fits .* \[\.\.\.\]$", lines[4]
    )
    assert lines[-1].startswith("? timed while the machine was disturbed")
    assert "?" not in table_of([whole], whole, Loss(miou=0.5, points=0.5), {})

    compared = ComparedForm.of(str(half.form), half.latency, "kept", miou=0.5, same_labels=1.0)
    left_out = ComparedForm.refused("openvino:int8@cpu:1", "left out: no kernel")
    for each in (compared, left_out):
        assert strict.parse(strict.dump(each), ComparedForm, "compared") == each
    assert compared.flagged == ("a neighbour",)
    earlier = strict.dump(ComparedForm.of(str(whole.form), whole.latency, "not kept"))
    assert "flagged" not in earlier
    assert (left_out.p50_milliseconds, left_out.verdict) == (None, "left out: no kernel")


def test_only_a_certificate_of_the_same_network_outside_a_run_is_replaced(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shallow: Callable[[str], Architecture]
) -> None:
    def asked(out: Path, data: Path = tmp_path / "none") -> tuple[str, str]:
        words = ["--target", "onnxruntime@cpu:1", "--data", f"folder:{data}", "--out", str(out)]
        assert cli.main(["quantize", str(trained), *words]) == 2
        told = capsys.readouterr()
        return told.out, told.err

    run = tmp_path / "run"
    (run / "trials").mkdir(parents=True)
    (run / "study.yaml").touch()
    for folder in (run / "winner", run / "winners" / "10ms", run / "of-mine"):
        assert f"got {folder} in the run {run}, which writes its own networks and certificates" in asked(folder)[1]
        assert not folder.exists()

    out = tmp_path / "out"
    out.mkdir()
    for name, answer in (("ndnet29-fcn32", 0), ("ndnet45-fcn32", 1)):
        architecture = scale_width(shallow(name), 0.25)
        certificate = replace(read_certificate(zoo.WINNERS / "camvid-ndnet45"), architecture=architecture.key)
        (out / "certificate.yaml").write_text(strict.dump(certificate))
        said = asked(out)
        words = (
            f"note: {out} holds a certificate of {certificate.certified} ({certificate.form}, network "
            f"{architecture.key}), which will be replaced",
            f"got {out} with that of another network, {architecture.key}, which would be lost; give another one",
        )
        assert words[answer] in said[answer]


def test_a_network_deployed_in_int8_is_calibrated_and_scored_by_its_runtime(
    shallow: Callable[[str], Architecture],
) -> None:
    dataset = load(DataSpec(size=SIZE, train_images=4, validation_images=3))
    network = scale_width(shallow("ndnet29-fcn32"), 0.25).build(11)
    target = parse_target("onnxruntime:int8@cpu:1")
    deployed = deployed_on(target, network, dataset)
    assert deployed is not None
    assert b"QuantizeLinear" in deployed.graph
    assert deployed.form == str(target)
    assert 0.5 < deployed.same_labels <= 1
    assert deployed_on(parse_target("onnxruntime@cpu:1"), network, dataset) is None
    with pytest.raises(UserError, match="expected --data to calibrate INT8 on"):
        deployed_on(target, network, None)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def test_a_network_that_pytorch_runs_in_half_precision_is_scored_in_half_precision(
    network: Network, device: str
) -> None:
    """Half precision on the CPU has the same limit: logits beyond 65504 are infinite, and the first class wins."""
    dataset = load(DataSpec(size=SIZE, train_images=2, validation_images=3))
    target, seen = Target(runtime="torch", precision="fp16", device=device), Counter()
    hook = network.register_forward_pre_hook(
        lambda ran, images: seen.update([(images[0].dtype, str(images[0].device))])
    )
    found = deployed_in_half(target, network, dataset)
    hook.remove()
    assert seen[torch.float32, device] == seen[torch.float16, device] == 3, "in both precisions where it ships"
    assert seen.total() == 6
    whole = evaluate(network, dataset)
    assert found.graph is None
    assert found.miou_float32 == pytest.approx(whole.miou, abs=1e-6)
    assert found.scores.miou == pytest.approx(whole.miou, abs=0.02)
    assert 0.97 < found.same_labels <= 1
    large = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in large.layer("head.logits").parameters():
            parameter.copy_(1e7 * parameter.flip(0))  # so that another class wins most pixels
        large.layer("head.logits").get_parameter("bias").add_(1e9)
    beyond = deployed_in_half(target, large, dataset)
    assert beyond.miou_float32 == pytest.approx(evaluate(large, dataset).miou, abs=1e-6)
    assert beyond.same_labels < 0.1
    assert next(network.parameters()).dtype == torch.float32, "it is left as it was"


@pytest.mark.slow
def test_a_network_deployed_without_a_graph_is_timed_and_certified_by_its_own_scores(
    network: Network, tmp_path: Path
) -> None:
    dataset = load(DataSpec(size=SIZE, train_images=2, validation_images=3))
    deployed = deployed_in_half(Target(runtime="torch", precision="fp16"), network, dataset)
    weights = network.state_dict()

    class Gpu:
        def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = 0) -> Latency:
            return Latency(
                p50_milliseconds=1.0, p90_milliseconds=1.0, p99_milliseconds=1.0, ci_low_milliseconds=1.0,
                ci_high_milliseconds=1.0, samples=40, ratio=1.0, ratio_low=1.0, ratio_high=1.0,
                reference_milliseconds=1.0, raw_p50_milliseconds=1.0, target="torch:fp16@cuda:0", height=48, width=64,
                scope="nothing",
            )  # fmt: skip

    finished = Finished(
        architecture=network.architecture, weights=weights, labelling=Labelling.of(dataset), dataset=dataset,
        deployed=deployed,
    )  # fmt: skip
    certification = Certification(
        target=parse_target("torch:fp16@cuda:0"), budget=None, meter_of=lambda *asked: contextlib.nullcontext(Gpu())
    )
    certificate = write_winner(tmp_path / "winner", finished, certification)
    assert read_certificate(tmp_path / "winner") == certificate
    assert certificate.precision == "fp16"
    assert certificate.scored == "validation images at 48x64, by PyTorch in float16 on cpu"
    assert (certificate.miou, certificate.miou_float32) == (deployed.scores.miou, deployed.miou_float32)
    assert certificate.onnx_tolerance is not None, "model.onnx is the network in full precision"
