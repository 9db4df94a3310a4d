"""The weights that a candidate's search hands over to its finish, and writes again if they are damaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from nas.data import Dataset, DataSpec, load
from nas.latency.record import Latency
from nas.report.summary import summarize
from nas.runs.epochs import commit_epoch, go_on
from nas.runs.folder import RunFolder
from nas.runs.initial_weights import hold_to_initial_weights
from nas.runs.labelling import TRAINED_WEIGHTS, WEIGHTS
from nas.runs.trial import Trial, forget_epochs, read_progress
from nas.search.console import Console
from nas.search.train.handover import pretrained_weights, save_weights_of, starting_weights
from nas.search.train.job import Job
from nas.study import built_in_study
from nas.training import Recipe
from nas.training.trainer import Trainer
from nas.training.weights import load_weights
from space import Architecture, UserError

RECIPE = Recipe(optimizer="adamw", learning_rate=0.01, epochs=1, batch_size=2)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load(DataSpec(size=(48, 64), train_images=2, validation_images=1))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", built_in_study("10ms"))


@pytest.fixture
def trial_of(
    invented: Callable[[float], Latency], plain_network: Callable[..., Architecture]
) -> Callable[[bool], Trial]:
    def made(rep: bool) -> Trial:
        return Trial(
            number=1,
            name="narrow",
            origin="random",
            architecture=plain_network((8, 1), (8, 1), rep=rep),
            latency=invented(5.0),
            feasible=True,
            budget_milliseconds=10.0,
            parameters=1,
            multiply_adds=1,
        )

    return made


def searched(run: RunFolder, trial: Trial, dataset: Dataset, init: Mapping[str, Tensor] | None = None) -> Trainer:
    """Train as a search's worker does: resume a training, and write the files of a finished one again."""
    folder = run.phase_path(trial, "search")
    folder.mkdir(parents=True, exist_ok=True)
    trainer = go_on(lambda: Trainer(trial.architecture, dataset, RECIPE, threads=1, init=init), folder)
    if trainer.finished:
        save_weights_of(trainer, folder, trial)
        return trainer
    trainer.run_epoch()
    save_weights_of(trainer, folder, trial)
    commit_epoch(folder, trainer)
    return trainer


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("rep", [True, False])
def test_a_finish_goes_on_from_the_trained_form(rep, folded, run, trial_of, dataset) -> None:
    """The trained form is one convolution if the search began with an `init` of folded weights."""
    trial = trial_of(rep)
    init = trial.architecture.build(len(dataset.classes)).state_dict() if folded else None
    trainer = searched(run, trial, dataset, init)
    assert trainer.is_reparameterized == (rep and not folded)
    assert run.is_done(trial, "search")
    assert (run.phase_path(trial, "search") / TRAINED_WEIGHTS).is_file() == rep
    assert starting_weights(run, trial, "search") is None
    weights = starting_weights(run, trial, "finish")
    assert weights is not None
    finish = Trainer(trial.architecture, dataset, RECIPE, threads=1, weights=weights)
    state = trainer.network.state_dict()
    assert finish.network.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in finish.network.state_dict().items())


@pytest.mark.parametrize("file", [TRAINED_WEIGHTS, WEIGHTS])
@pytest.mark.parametrize("missing", [True, False])
def test_damaged_and_missing_weights_are_written_again(file, missing, run, trial_of, dataset) -> None:
    trial = trial_of(True)
    searched(run, trial, dataset)
    damaged = run.phase_path(trial, "search") / file
    whole = {name: value.clone() for name, value in load_weights(damaged).items()}  # read from the file when used
    if missing:
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:-9])
    assert not run.is_done(trial, "search")
    searched(run, trial, dataset)
    assert run.is_done(trial, "search")
    again = load_weights(damaged)
    assert again.keys() == whole.keys()
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_a_pruned_candidate_goes_on_from_one_convolution(run, trial_of, dataset) -> None:
    """The original ran as one convolution, whether channels or only blocks were cut."""
    whole = trial_of(True)
    narrow = replace(whole.architecture, channels={"stem.conv0": 2})
    for architecture in (whole.architecture, narrow):
        trial = replace(whole, origin="pruned", parent="narrow", architecture=architecture)
        folder = run.phase_path(trial, "search")
        with pytest.raises(UserError, match=WEIGHTS):
            starting_weights(run, trial, "finish")
        weights = architecture.build(len(dataset.classes)).state_dict()
        trainer = Trainer(architecture, dataset, RECIPE, threads=1, weights=weights)
        save_weights_of(trainer, folder, trial)
        assert [file.name for file in folder.iterdir()] == [WEIGHTS]
        assert (starting_weights(run, trial, "finish") or {}).keys() == weights.keys()


def test_pretrained_weights_are_kept_in_the_run_for_every_candidate(run, dataset, plain_network, tmp_path) -> None:
    file, architecture = tmp_path / "w.pth", plain_network((8, 1), (8, 1))
    torch.save(architecture.build(2).state_dict(), file)
    study = run.study()
    assert pretrained_weights(run, study, "search") is None
    study = replace(study, recipe=replace(RECIPE, init=str(file)))
    run.write_study(study)
    assert run.study().recipe.init == str(file)
    hold_to_initial_weights(run.root, study.recipe.init, begun=True, trained=False)
    file.unlink()
    assert hold_to_initial_weights(run.root, study.recipe.init, begun=True, trained=True) is not None
    assert pretrained_weights(run, study, "finish") is None
    init = pretrained_weights(run, study, "search")
    trainer = Trainer(architecture, dataset, study.recipe, init=init, threads=1)
    assert trainer.taken is not None
    assert trainer.taken.fresh == ("head.logits",)
    assert init is not None
    assert torch.equal(trainer.network.state_dict()["stem.conv0.weight"].contiguous(), init["stem.conv0.weight"])


def test_the_pretrained_share_of_a_candidate_is_recorded_printed_and_reported(run, dataset, trial_of, tmp_path, capsys):
    whole = trial_of(False)
    stem = replace(whole.architecture.stem, width=6)
    wider = replace(whole, number=2, name="wider", architecture=replace(whole.architecture, stem=stem))
    init, study = whole.architecture.build(7).state_dict(), run.study()
    recipe, console = replace(RECIPE, init="w.pth"), Console(run, study)
    for trial, words in (
        (whole, "6 of 7 layers pretrained, 2 tensors of the file not used"),
        (
            wider,
            "no layer pretrained: stem.conv0.weight is of shape (6, 3, 3, 3) here, stem.conv0.weight in the file of "
            "(4, 3, 3, 3)",
        ),
    ):
        run.write_trial(trial)
        folder = run.phase_path(trial, "search")
        trainer = go_on(partial(Trainer, trial.architecture, dataset, recipe, init=init, threads=1), folder)
        trainer.run_epoch()
        commit_epoch(folder, trainer)
        assert str(read_progress(folder).pretrained) == words
        console.epoch(Job(trial=trial, phase="search"), 1, 1.5, 0.25)
        assert capsys.readouterr().out.endswith(f" left  {words} (pretrained.yaml)\n")
        names = yaml.safe_load((folder / "pretrained.yaml").read_text())
        unused = [name for name in init if name.rpartition(".")[0] in names["fresh"] and "num_batches" not in name]
        assert (len(names["fresh"] + names["layers"]), names["unused"]) == (7, unused)
        console.epoch(Job(trial=trial, phase="search"), 2, 1.5, 0.25)
        assert "pretrained" not in capsys.readouterr().out
    told = summarize(run)
    assert [each.pretrained.layers for each in told.trials if each.pretrained] == [6, 0]
    assert any(
        note.startswith("1 of 2 candidates could use no layer of the pretrained weights in init") for note in told.notes
    )
    forget_epochs(folder, after=0)
    assert str(read_progress(folder).pretrained) == words
