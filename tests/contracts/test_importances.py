"""Contract of importances: every file in pruning/importances is tested here."""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning import importances
from pruning.importance import Importance, LabelledData
from pruning.surgery import Cutter
from space import Architecture, UserError
from space.channels import parametric
from space.network import Network
from space.scale import scale_width

CLASSES = 4
SIZE = (44, 60)
NETWORKS = {
    "concatenated images, transposed convolutions": ("erfnet", 0.25),
    "depthwise convolutions": ("swiftnet-mnv2", 0.25),
    "branches": ("fplnet-encoder", 0.5),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=importances.kinds())
def importance(request: pytest.FixtureRequest) -> Importance:
    return importances.kind(request.param)


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest, shallow: Callable[[str], Architecture]) -> Network:
    """A network none of whose numbers are as initialised."""
    torch.manual_seed(0)
    name, factor = NETWORKS[request.param]
    network: Network = scale_width(shallow(name), factor).build(CLASSES).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
    return network


def cutter_of(network: Network) -> Cutter:
    return Cutter(network.architecture, CLASSES)


def data(*, loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy) -> LabelledData:
    random = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(2, 3, *SIZE, generator=random), torch.randint(CLASSES, (2, *SIZE), generator=random))
        for _ in range(2)
    ]
    return LabelledData(batches=batches, loss=loss)


def some(importance: Importance) -> LabelledData | None:
    """Labelled data where an importance needs them."""
    return data() if importance.needs_data else None


def test_each_file_is_a_kind_of_importance() -> None:
    files = {module.name for module in pkgutil.iter_modules(importances.__path__)}
    assert {name.replace("-", "_") for name in importances.kinds()} >= files >= {"fisher", "batch_norm"}


def test_default_importances_exist_with_and_without_data() -> None:
    assert importances.kind(importances.default(with_data=True)).needs_data
    assert importances.default(with_data=False) == importances.without_data()[0]


def test_an_unknown_importance_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'fisher'"):
        importances.kind("fischer")


@pytest.mark.share(3)
def test_an_importance_gives_one_score_per_channel(importance: Importance, network: Network) -> None:
    cutter = cutter_of(network)
    scores = importance.scores(cutter, network, some(importance))
    assert scores.shape == cutter.everything.shape
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
    free = np.concatenate([cutter.map.members(name) for name in cutter.map.names])
    assert len(np.unique(scores[free])) > len(free) / 2  # the scores tell channels apart


@pytest.mark.share(3)
def test_the_same_network_has_the_same_scores(importance: Importance, network: Network) -> None:
    first, second = (importance.scores(cutter_of(network), network, some(importance)) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.share(3)
@pytest.mark.parametrize("training", [False, True])
def test_scoring_leaves_the_network_unchanged(training: bool, importance: Importance, network: Network) -> None:
    network.train(training)
    given = {name: torch.ones_like(parameter) for name, parameter in list(network.named_parameters())[::2]}
    for name, parameter in network.named_parameters():
        parameter.grad = given.get(name)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    importance.scores(cutter_of(network), network, some(importance))
    assert all(module.training is training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for name, parameter in network.named_parameters():
        assert parameter.grad is given.get(name)
        assert parameter.grad is None or bool((parameter.grad == 1).all())
        assert parameter.requires_grad


@pytest.mark.share(3)
def test_a_pruned_network_is_scored_over_the_unpruned_channels(importance: Importance, network: Network) -> None:
    whole = cutter_of(network)
    keep = whole.everything.copy()
    for name in whole.map.names:
        keep[whole.map.members(name)[1::3]] = False
    cut = whole.cut(network, keep)
    cutter = cutter_of(cut)
    scores = importance.scores(cutter, cut, some(importance))
    assert scores.shape == whole.everything.shape
    assert (scores[~cutter.everything] == 0).all()
    assert np.isfinite(scores).all()
    assert scores.max() > 0


@pytest.mark.share(3)
def test_a_channel_of_nothing_but_zeros_is_the_last_of_its_group(importance: Importance, network: Network) -> None:
    cutter = cutter_of(network)
    wide = [cutter.map.members(name) for name in cutter.map.names if len(cutter.map.members(name)) >= 4]
    with torch.no_grad():
        for node in parametric(cutter.graph):
            dead = [int(members[1]) for members in wide]
            out, read = (
                torch.from_numpy(np.isin(channels, dead))
                for channels in (cutter.positions(node), cutter.read_positions(node))
            )
            for parameter in network.layer(node.name).parameters():
                if node.kind == "deconv" and parameter.dim() > 1:
                    parameter[read] = 0.0
                    parameter[:, out] = 0.0
                    continue
                parameter[out] = 0.0
                if parameter.dim() > 1 and not node.group_width:
                    parameter[:, read] = 0.0
    scores = importance.scores(cutter, network, some(importance))
    for members in wide:
        assert scores[members[1]] == scores[members].min() < scores[members].max()


@pytest.mark.share(3)
def test_an_importance_that_needs_data_asks_for_them(importance: Importance, network: Network) -> None:
    cutter = cutter_of(network)
    if importance.needs_data:
        with pytest.raises(UserError, match="expected labelled data"):
            importance.scores(cutter, network)
        with pytest.raises(UserError, match="finite loss"):
            importance.scores(cutter, network, data(loss=lambda logits, labels: logits.sum() * math.nan))
        assert all(parameter.grad is None for parameter in network.parameters())
        assert not network.training
    else:
        assert np.array_equal(
            importance.scores(cutter, network), importance.scores(cutter, network, data())
        )  # data make no difference


def test_finding_importances_loads_no_heavy_library(run: Callable[..., str]) -> None:
    program = (
        "import sys; from pruning import importances; importances.kinds(); "
        "print([name for name in ('torch', 'torch_pruning', 'ray', 'onnx') if name in sys.modules])"
    )
    assert run(program) == "[]"


OTHERS = """
import numpy as np
from pruning.importance import Importance


def backwards(cutter, network):
    return np.arange(len(cutter.everything), 0, -1.0) * cutter.everything


IMPORTANCE = Importance(of_weights=backwards)
"""


def test_an_importance_of_another_package_is_found(run: Callable[..., str], tmp_path: Path) -> None:
    """Its entry point makes it known; the command line offers it like the others."""
    (tmp_path / "brought.py").write_text(OTHERS)
    (tmp_path / "brought-1.0.dist-info").mkdir()
    (tmp_path / "brought-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
    (tmp_path / "brought-1.0.dist-info" / "entry_points.txt").write_text(
        "[framebudget.importances]\nin-order = brought\n"
    )
    program = "from pruning import importances; print(*importances.without_data())"
    assert run(program, tmp_path) == "magnitude batch-norm in-order"
    words = run(
        "import nas.cli, contextlib\nwith contextlib.suppress(SystemExit): nas.cli.main(['prune', '-h'])", tmp_path
    )
    assert "{fisher,taylor,batch-norm,in-order,magnitude}" in words


def test_an_importance_without_a_scoring_function_is_refused() -> None:
    with pytest.raises(AssertionError, match="of_weights or of_loss"):
        Importance()
