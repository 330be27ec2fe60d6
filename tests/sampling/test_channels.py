"""Scores of hidden channels, on networks with a known number of used channels."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import analyse
from bench.records.base import Skipped
from bench.records.probes import ChannelScores, Scores
from bench.stats import intervals
from bench.store.codec import case_key
from bench.training.probes import channels
from models import create, names
from models.fcdm import FCDM, Config
from models.task import Task
from tests.probes import IMAGES, command, subject, trained_run

HIDDEN = 20
LAYER = analyse.LAYER


class Hides(nn.Module):
    """20 hidden channels; the first few are never above zero."""

    def __init__(self, dead: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(2, HIDDEN, 1)
        self.contract = nn.Conv2d(HIDDEN, 4, 1)
        with torch.no_grad():
            self.expand.bias[:dead] = -100.0
            self.expand.bias[dead:] = 5.0

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.contract(self.expand(x))


class Tokens(Hides):
    """The same channels along the last axis, read by a linear layer."""

    def __init__(self, dead: int) -> None:
        super().__init__(dead)
        self.contract = nn.Linear(HIDDEN, 4)  # type: ignore[assignment]

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        tokens = self.expand(x).flatten(2).transpose(1, 2)
        return self.contract(tokens).transpose(1, 2).unflatten(2, x.shape[2:])


class Equal(nn.Module):
    """Hidden channel i is i everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.contract = nn.Conv2d(HIDDEN, 4, 1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        levels = torch.arange(HIDDEN, dtype=x.dtype)[None, :, None, None]
        return self.contract(levels.expand(len(x), -1, *x.shape[2:]))


class NeverReads(Hides):
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, x], dim=1)


class HasASide(Hides):
    """Has a second layer of the same name that no image reaches."""

    def __init__(self, dead: int) -> None:
        super().__init__(dead)
        self.side = Hides(dead)


class Overflows(Hides):
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(x, t, y) / 0


@pytest.mark.parametrize("dead", [0, 7, 19])
@pytest.mark.parametrize("network", [Hides, Tokens])
def test_dead_channels_are_counted(network: type[Hides], dead: int) -> None:
    result = channels.measure(subject(partial(network, dead)), IMAGES, LAYER)
    assert isinstance(result, ChannelScores)
    (layer,) = result.layers
    assert layer.layer == "contract"
    assert layer.dead_share == dead / HIDDEN
    assert [score == 0 for score in layer.scores] == [True] * dead + [False] * (HIDDEN - dead)


def test_a_score_is_the_mean_over_images_places_and_levels() -> None:
    result = channels.measure(subject(Equal), IMAGES, LAYER)
    assert isinstance(result, ChannelScores)
    assert result.layers[0].scores == tuple(float(i) for i in range(HIDDEN))


def test_values_below_zero_count_as_none() -> None:
    tally = channels.Tally()
    tally.add(nn.Identity(), (torch.tensor([-3.0, 1.0])[None, :, None, None],))
    tally.add(nn.Identity(), (torch.tensor([2.0, 2.0])[None, :, None, None],))
    assert tally.scores == (1.0, 1.5)


def test_scores_do_not_depend_on_the_batch() -> None:
    whole = subject(partial(Hides, 7))
    parts = replace(whole, fields={**whole.fields, "batch": 4})
    first, second = (channels.measure(one, IMAGES, LAYER) for one in (whole, parts))
    assert isinstance(first, ChannelScores)
    assert isinstance(second, ChannelScores)
    assert first.layers[0].scores == pytest.approx(second.layers[0].scores, rel=1e-6)


def test_gini_and_effective_count_of_known_shares() -> None:
    assert intervals.gini([1, 1, 1, 1]) == 0
    assert intervals.gini([0, 0, 0, 1]) == 0.75
    assert intervals.gini([3, 1]) == 0.25
    assert intervals.effective_count([2, 2, 2, 2]) == pytest.approx(4)
    assert intervals.effective_count([0, 5, 5, 0]) == pytest.approx(2)
    assert intervals.gini([0, 0]) == intervals.effective_count([0, 0]) == 0


def test_a_layer_of_zeros_is_dead() -> None:
    silent = Scores(layer="contract", scores=(0.0, 0.0))
    assert (silent.dead_share, silent.effective_share) == (1.0, 0.0)


def test_fcdm_is_scored_behind_response_normalisation() -> None:
    config = Config(width=8, depths=(1, 0, 0, 0, 0))
    model = FCDM(config, Task(latent_size=8, in_channels=2, num_classes=10)).eval()
    block = model.unet.get_submodule("encoder1.0")
    response = block.get_submodule("response")
    torch.nn.init.constant_(response.get_parameter("gamma"), 0.5)
    seen: list[Tensor] = []
    response.register_forward_hook(lambda _, __, out: seen.append(out))
    made = replace(subject(Equal), model=model, probe=replace(subject(Equal).probe, levels=(500,)))
    result = channels.measure(made, IMAGES, LAYER)
    assert isinstance(result, ChannelScores)
    wanted = F.relu(seen[0]).mean((0, 2, 3))
    assert result.layers[0].scores == pytest.approx(wanted.tolist(), rel=1e-5)


@pytest.mark.parametrize("name", ["FCDM-S", "FCDM-S@cca", "FCDM-S@nogrn", "DiT-S/2", "DiCo-S", "DiG-S/2"])
def test_layers_of_our_networks_are_found(name: str) -> None:
    with torch.device("meta"):
        model = create(name)
    assert len(channels.find_layers(model, LAYER)) >= 12


def test_fcdm_without_grn_has_the_same_widths() -> None:
    assert "FCDM-L@nogrn" in names("FCDM-L@*")
    with torch.device("meta"):
        plain, usual = create("FCDM-S@nogrn"), create("FCDM-S")
    gone = {name for name, _ in usual.named_parameters()} - {name for name, _ in plain.named_parameters()}
    assert {name.rpartition(".")[2] for name in gone} == {"gamma", "beta"}


def test_layers_without_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="middle: matches no layer of Hides, which has expand, contract"):
        channels.find_layers(Hides(0), "middle")
    with pytest.raises(ValueError, match="a Sequential, neither a convolution nor a linear layer"):
        channels.find_layers(nn.Sequential(nn.Sequential(nn.Conv2d(1, 1, 1))), "0")


def test_unread_layers_and_overflow_are_rows_with_reasons() -> None:
    unread = channels.measure(subject(partial(NeverReads, 0)), IMAGES, LAYER)
    assert isinstance(unread, Skipped)
    assert unread.reason == "never reached: contract"
    infinite = channels.measure(subject(partial(Overflows, 0)), IMAGES, LAYER)
    assert isinstance(infinite, Skipped)
    assert infinite.status == "not finite"


def test_a_layer_that_no_image_reaches_is_left_out() -> None:
    one = subject(partial(HasASide, 3))
    assert set(channels.find_layers(one.model, LAYER)) == {"contract", "side.contract"}
    result = channels.measure(one, IMAGES, LAYER)
    assert isinstance(result, ChannelScores)
    assert [layer.layer for layer in result.layers] == ["contract"]
    assert result.case == channels.case_of(one, LAYER)


def test_other_layers_are_another_case() -> None:
    one = subject(partial(Hides, 0))
    case = channels.case_of(one, LAYER)
    assert channels.measure(one, IMAGES, LAYER).case == case
    assert case_key(case) != case_key(channels.case_of(one, "expand"))


def test_a_checkpoint_is_scored_layer_by_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained_run(tmp_path, "tests.tiny:Tiny")
    argv = ["--checkpoint", str(folder), "--images", "8", "--levels", "0", "999", "--layer", "head|stem"]
    rows, notes = command(analyse.main, ["channels", *argv, "--by", "layer"], capsys)
    assert [(row["layer"], row["channels"]) for row in rows] == [("stem", 1), ("head", 8)]
    assert "8 validation images of digits" in notes
    out = ["--out", str(tmp_path / "channels.jsonl")]
    whole, _ = command(analyse.main, ["channels", *argv, *out], capsys)
    assert whole[0]["channels"] == 9
    again, notes = command(analyse.main, ["channels", *argv, *out], capsys)
    assert again == whole
    assert "1 of 1 were in" in notes


def test_a_network_without_such_layers_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained_run(tmp_path, "tests.tiny:Tiny")
    assert analyse.main(["channels", "--checkpoint", str(folder)]) == 2
    assert "matches no layer of Tiny, which has time1, time2, stem, head" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        analyse.main(["channels", "--checkpoint", str(folder), "--layer", "("])
    assert "must be a regular expression, got '('" in capsys.readouterr().err
