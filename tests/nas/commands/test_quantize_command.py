"""`nas quantize`: what is kept, and what its certificate says."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from nas import cli
from nas.data import DataSpec, load
from nas.latency import parse_target
from nas.quantization.shipping import deployed_on
from nas.runs.certificate import read_certificate
from nas.runs.labelling import Labelling, metadata
from nas.training.weights import save_weights
from space import Architecture
from space.errors import UserError
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


@pytest.mark.slow
def test_what_is_kept_is_certified_with_all_that_was_found(
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
def test_a_certificate_says_of_how_many_epochs_its_fine_tuning_was(
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
def test_what_cannot_be_asked_is_refused(
    words: list[str], message: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["quantize", str(trained), *words, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_ships_in_int8_is_calibrated_and_scored_by_its_runtime(shallow: Callable[[str], Architecture]) -> None:
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
