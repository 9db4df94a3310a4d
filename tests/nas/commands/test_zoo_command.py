"""Winners that come with the package: complete, found by name, and usable wherever an architecture is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import space
from nas.runs import zoo
from nas.runs.certificate import read_certificate
from nas.runs.trained import load_trained, require_certified

ROOT = Path(__file__).parents[3]
NAMES = zoo.names()
NAME = "camvid-searched"
FILES = {"architecture.yaml", "weights.safetensors", "model.onnx", "certificate.yaml"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Run in a folder that is no checkout, as users do."""
    monkeypatch.chdir(tmp_path)


def test_the_zoo_holds_exactly_the_winners_of_studies():
    winners = {folder.name: folder for folder in ROOT.glob("studies/*/winners/*")}
    assert NAME in NAMES
    assert set(NAMES) == set(winners)
    for name, folder in winners.items():
        assert (zoo.WINNERS / name).is_symlink()  # the package holds no second copy of the weights
        assert (zoo.WINNERS / name).resolve() == folder
        assert not {name} & set(space.published())


@pytest.mark.parametrize("name", NAMES)
def test_each_winner_of_the_zoo_agrees_with_its_certificate(name):
    folder = zoo.WINNERS / name
    certificate = read_certificate(folder)
    assert {file.name for file in folder.iterdir()} == FILES == {"certificate.yaml", *certificate.sha256}
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10_000_000
    for file in certificate.sha256:
        require_certified(folder / file)
    trained = load_trained(name, None)
    assert trained.architecture.key == certificate.architecture
    network = trained.network(certificate.num_classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == certificate.parameters
    timed = certificate.latency
    assert (trained.labelling.data, trained.labelling.size) == (certificate.data, (timed.height, timed.width))
    assert certificate.miou is not None


def test_winners_are_listed_with_the_figures_of_their_certificates(nas):
    lines = nas("zoo").done().out.splitlines()
    assert lines[0].split()[:4] == ["name", "data", "size", "target"]
    rows = {line.split()[0]: line.split() for line in lines[2 : 2 + len(NAMES)]}
    assert set(rows) == set(NAMES)
    certificate = read_certificate(zoo.WINNERS / NAME)
    assert rows[NAME][1:4] == ["camvid", "176x240", "onnxruntime@cpu:1"]
    assert rows[NAME][4] == f"{certificate.latency.p50_milliseconds:.2f}"
    assert rows[NAME][6:8] == [f"{100 * certificate.miou:.1f}", "272,631"]


def test_a_copy_is_the_same_network(nas, tmp_path):
    answer = nas("zoo", NAME, "--out", tmp_path / "mine").done()
    assert {file.name for file in (tmp_path / "mine").iterdir()} == FILES
    assert set(answer.out.split()[1:]) == FILES
    for file in FILES:
        assert (tmp_path / "mine" / file).read_bytes() == (zoo.WINNERS / NAME / file).read_bytes()
        assert not (tmp_path / "mine" / file).is_symlink()
    shown = nas("show", tmp_path / "mine").done().out
    assert shown.splitlines()[:-1] == nas("show", NAME).done().out.splitlines()[:-1]
    assert "at 176x240 with 11 classes; key 1fe51c564993" in shown
    nas("zoo", NAME, "--out", tmp_path / "mine").done()  # its own files may be replaced


def test_a_winner_can_be_copied_into_the_current_folder_again_and_again(nas, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        nas("zoo", NAME, "--out", ".").done()
        assert {file.name for file in tmp_path.iterdir()} == FILES


def test_folders_with_files_of_the_user_are_not_replaced(nas, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    assert "with thesis.txt, which would be lost" in nas("zoo", NAME, "--out", tmp_path).refusal()
    assert {file.name for file in tmp_path.iterdir()} == {"thesis.txt"}
    (tmp_path / "thesis.txt").unlink()
    nas("zoo", NAME, "--out", tmp_path).done()
    (tmp_path / "evaluation.yaml").write_text("miou: 0.6")
    assert "with evaluation.yaml, which would be lost" in nas("zoo", NAME, "--out", tmp_path).refusal()
    assert {file.name for file in tmp_path.iterdir()} == {*FILES, "evaluation.yaml"}


def test_changed_copies_are_not_replaced(nas, tmp_path):
    nas("zoo", NAME, "--out", tmp_path).done()
    (tmp_path / "lost+found").mkdir()  # as in the root folder of a disk
    nas("zoo", NAME, "--out", tmp_path).done()
    assert (tmp_path / "lost+found").is_dir()
    for name in ("model.onnx", "data.yaml"):
        (tmp_path / name).write_text("mine: too")
        assert f"with {name}, which would be lost" in nas("zoo", NAME, "--out", tmp_path).refusal()
        (tmp_path / name).unlink()


def test_a_name_brings_its_weights_wherever_a_network_is_used(nas, own_pictures, tmp_path):
    picture = next((own_pictures / "val" / "images").iterdir())
    out = nas("predict", NAME, picture, "--out", tmp_path / "seen").done().out
    assert "%" in out
    assert (tmp_path / "seen" / f"{picture.stem}.overlay.png").is_file()
    assert "give --data camvid:DIR" in nas("evaluate", NAME).refusal()


def test_a_folder_of_the_current_folder_comes_before_a_winner_of_the_same_name(nas, tmp_path):
    nas("zoo", "camvid-ndnet45", "--out", NAME).done()
    assert "481,859 parameters" in nas("show", NAME).done().out


@pytest.mark.parametrize("name", ["erfnet", NAME])
def test_a_folder_without_a_network_does_not_stand_for_its_name(nas, own_pictures, tmp_path, name):
    """Such a folder may be a clone of the authors' code, or the output of a command."""
    shown = nas("show", name).done().out
    (tmp_path / name).mkdir()
    (tmp_path / name / "README.md").write_text("a clone")
    assert nas("show", name).done().out == shown
    if name == NAME:
        picture = next((own_pictures / "val" / "images").iterdir())
        for _ in range(2):
            nas("predict", name, picture, "--out", name).done()


def test_mistakes_are_answered_in_one_line(nas, tmp_path):
    assert f"did you mean '{NAME}'?" in nas("zoo", "camvid-serched").refusal()
    assert f"did you mean '{NAME}'?" in nas("predict", "camvid-serched", "street.jpg").refusal()
    assert "expected the NAME of a winner" in nas("zoo", "--out", "x").refusal()
    nas("zoo", NAME, "--out", tmp_path / "mine").done()
    with (tmp_path / "mine" / "weights.safetensors").open("ab") as file:
        file.write(b"more")
    assert "expected the file that certificate.yaml beside it certifies" in nas("predict", "mine", "a.jpg").refusal()


@pytest.mark.slow
def test_a_wheel_contains_the_winners_and_works_outside_a_checkout(own_pictures, tmp_path):
    """The wheel is built and unpacked as pip does, without access to a network."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    for path in tracked.stdout.split("\0")[:-1]:
        if (ROOT / path).exists():  # except files that are being removed
            (tmp_path / "checkout" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, tmp_path / "checkout" / path, follow_symlinks=False)
    build = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", tmp_path, "."]
    subprocess.run([sys.executable, *build], cwd=tmp_path / "checkout", check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    shutil.rmtree(tmp_path / "checkout")  # the wheel must not link to the checkout
    picture = next((own_pictures / "val" / "images").iterdir())
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r}); from nas.cli import main; sys.exit(main())"
    )
    for words in (("zoo",), ("predict", NAME, picture)):
        done = subprocess.run(
            [sys.executable, "-P", "-c", program, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert NAME in done.stdout or "overlay.png" in done.stdout
    assert {file.name for file in (tmp_path / "installed/nas/runs/winners" / NAME).iterdir()} == FILES
