"""Weights on disk and in networks: exact copies, or errors that name the tensors that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.training.weights import load_into, load_weights, read_metadata, save_weights
from space.errors import UserError


def network(channels: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels))


def test_a_file_of_weights_keeps_the_bits_and_the_metadata(tmp_path) -> None:
    weights = network().to(memory_format=torch.channels_last).state_dict()
    path = tmp_path / "deep" / "weights.safetensors"
    save_weights(path, weights, {"architecture": "abc"})
    loaded = load_weights(path)
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    assert read_metadata(path) == {"architecture": "abc"}
    assert [file.name for file in path.parent.iterdir()] == ["weights.safetensors"]


def test_a_file_of_weights_has_the_usual_permissions(tmp_path) -> None:
    (tmp_path / "plain").write_text("")
    save_weights(tmp_path / "weights.safetensors", network().state_dict(), {})
    assert (tmp_path / "weights.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_write_leaves_the_old_file(tmp_path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, network().state_dict(), {})
    before = path.read_bytes()
    with pytest.raises(Exception, match=r"(?i)metadata|str|convert"):
        save_weights(path, network().state_dict(), {"epoch": 3})  # type: ignore[dict-item]
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 a pickled checkpoint", b'\x10\0\0\0\0\0\0\0{"a":'])
@pytest.mark.parametrize("read", [load_weights, read_metadata])
def test_a_file_without_weights_is_named(tmp_path, content, read) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"weights.safetensors: expected a safetensors file"):
        read(path)


def test_fitting_weights_are_copied() -> None:
    source, target = network(), network()
    load_into(target, source.state_dict(), "test")
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_batch_norm_counters_are_optional() -> None:
    weights = {name: value for name, value in network().state_dict().items() if "num_batches" not in name}
    target = network()
    load_into(target, weights, "old file")
    assert torch.equal(target.state_dict()["0.weight"], weights["0.weight"])


def test_weights_that_do_not_fit_are_named_and_nothing_is_copied() -> None:
    target = network()
    before = target.state_dict()["0.weight"].clone()
    with pytest.raises(UserError, match=r"w.st: expected 0.weight of shape \(4, 3, 3, 3\), got \(6, 3, 3, 3\)"):
        load_into(target, network(6).state_dict(), "w.st")
    missing = {name: value for name, value in network().state_dict().items() if name != "1.running_var"}
    with pytest.raises(UserError, match=r"expected 1.running_var of shape \(4,\), got no such weight"):
        load_into(target, missing, "w.st")
    with pytest.raises(UserError, match=r"unknown weight 1.running_vat.*did you mean '1.running_var'"):
        load_into(target, {**network().state_dict(), "1.running_vat": torch.zeros(4)}, "w.st")
    assert torch.equal(target.state_dict()["0.weight"], before)
