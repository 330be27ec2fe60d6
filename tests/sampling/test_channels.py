"""Scores of hidden channels: networks of which it is known how many channels they use."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import channels
from bench.records.record import ChannelScores, Scores, Skipped, key
from bench.stats import intervals
from models import create, names
from models.fcdm import FCDM, Config
from models.task import Task
from tests.probes import SHOWN, command, subject, trained_run

HIDDEN = 20


class Hides(nn.Module):
    """Has 20 hidden channels, of which the first few never get above zero."""

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
    """Has a second layer of that name, which no image reaches."""

    def __init__(self, dead: int) -> None:
        super().__init__(dead)
        self.side = Hides(dead)


class Overflows(Hides):
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(x, t, y) / 0


@pytest.mark.parametrize("dead", [0, 7, 19])
@pytest.mark.parametrize("network", [Hides, Tokens])
def test_a_layer_with_so_many_dead_channels_reports_so_many(network: type[Hides], dead: int) -> None:
    result = channels.measure(subject(partial(network, dead)), SHOWN, channels.LAYER)
    assert isinstance(result, ChannelScores)
    (layer,) = result.layers
    assert layer.layer == "contract"
    assert layer.dead_share == dead / HIDDEN
    assert [score == 0 for score in layer.scores] == [True] * dead + [False] * (HIDDEN - dead)


def test_a_score_is_the_mean_over_images_places_and_levels() -> None:
    result = channels.measure(subject(Equal), SHOWN, channels.LAYER)
    assert isinstance(result, ChannelScores)
    assert result.layers[0].scores == tuple(float(i) for i in range(HIDDEN))


def test_values_below_zero_count_as_none() -> None:
    tally = channels.Tally(channels_last=False)
    tally(nn.Identity(), (torch.tensor([-3.0, 1.0])[None, :, None, None],))
    tally(nn.Identity(), (torch.tensor([2.0, 2.0])[None, :, None, None],))
    assert tally.scores == (1.0, 1.5)


def test_scores_do_not_depend_on_the_batch() -> None:
    whole = subject(partial(Hides, 7))
    parts = replace(whole, run=replace(whole.run, batch=4))
    first, second = (channels.measure(one, SHOWN, channels.LAYER) for one in (whole, parts))
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


def test_a_layer_of_nothing_but_zeros_is_dead_as_a_whole() -> None:
    silent = Scores(layer="contract", scores=(0.0, 0.0))
    assert (silent.dead_share, silent.effective_share) == (1.0, 0.0)


def test_what_is_scored_in_fcdm_is_what_comes_out_of_response_normalisation() -> None:
    config = Config(width=8, depths=(1, 0, 0, 0, 0))
    model = FCDM(config, Task(latent_size=8, in_channels=2, num_classes=10)).eval()
    block = model.unet.get_submodule("encoder1.0")
    response = block.get_submodule("response")
    torch.nn.init.constant_(response.get_parameter("gamma"), 0.5)
    seen: list[Tensor] = []
    response.register_forward_hook(lambda _, __, out: seen.append(out))
    made = replace(subject(Equal), model=model, probe=replace(subject(Equal).probe, levels=(500,)))
    result = channels.measure(made, SHOWN, channels.LAYER)
    assert isinstance(result, ChannelScores)
    wanted = F.relu(seen[0]).mean((0, 2, 3))
    assert result.layers[0].scores == pytest.approx(wanted.tolist(), rel=1e-5)


@pytest.mark.parametrize("name", ["FCDM-S", "FCDM-S@cca", "FCDM-S@nogrn", "DiT-S/2", "DiCo-S", "DiG-S/2"])
def test_every_block_of_our_networks_has_a_layer_that_is_found(name: str) -> None:
    with torch.device("meta"):
        model = create(name)
    assert len(channels.find_layers(model, channels.LAYER)) >= 12


def test_fcdm_without_either_enhancement_is_a_variant_with_the_same_widths() -> None:
    assert "FCDM-L@nogrn" in names("FCDM-L@*")
    with torch.device("meta"):
        plain, usual = create("FCDM-S@nogrn"), create("FCDM-S")
    gone = {name for name, _ in usual.named_parameters()} - {name for name, _ in plain.named_parameters()}
    assert {name.rpartition(".")[2] for name in gone} == {"gamma", "beta"}


def test_layers_that_are_not_there_or_read_no_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no layer of Hides is called so; expand, contract are"):
        channels.find_layers(Hides(0), "middle")
    with pytest.raises(ValueError, match="a Sequential, neither a convolution nor a linear layer"):
        channels.find_layers(nn.Sequential(nn.Sequential(nn.Conv2d(1, 1, 1))), "0")


def test_a_network_whose_layers_are_never_reached_or_that_overflows_is_a_row_with_a_reason() -> None:
    unread = channels.measure(subject(partial(NeverReads, 0)), SHOWN, channels.LAYER)
    assert isinstance(unread, Skipped)
    assert unread.reason == "never reached: contract"
    infinite = channels.measure(subject(partial(Overflows, 0)), SHOWN, channels.LAYER)
    assert isinstance(infinite, Skipped)
    assert infinite.status == "not finite"


def test_a_layer_that_no_image_reaches_is_left_out() -> None:
    one = subject(partial(HasASide, 3))
    assert set(channels.find_layers(one.model, channels.LAYER)) == {"contract", "side.contract"}
    result = channels.measure(one, SHOWN, channels.LAYER)
    assert isinstance(result, ChannelScores)
    assert [layer.layer for layer in result.layers] == ["contract"]
    assert key(result) == key(channels._blank(one, channels.LAYER))


def test_other_layers_are_another_case() -> None:
    one = subject(partial(Hides, 0))
    assert key(channels._blank(one, channels.LAYER)) == key(channels.measure(one, SHOWN, channels.LAYER))
    assert key(channels._blank(one, channels.LAYER)) != key(channels._blank(one, "expand"))


def test_a_checkpoint_is_scored_layer_by_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained_run(tmp_path, "tests.tiny:Tiny")
    argv = ["--checkpoint", str(folder), "--images", "8", "--levels", "0", "999", "--layer", "head|stem"]
    rows, notes = command(channels.main, [*argv, "--by", "layer"], capsys)
    assert [(row["layer"], row["channels"]) for row in rows] == [("stem", 1), ("head", 8)]
    assert "8 validation images of digits" in notes
    out = ["--out", str(tmp_path / "channels.jsonl")]
    whole, _ = command(channels.main, [*argv, *out], capsys)
    assert whole[0]["channels"] == 9
    again, notes = command(channels.main, [*argv, *out], capsys)
    assert again == whole
    assert "1 of 1 were in" in notes


def test_a_network_without_such_layers_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained_run(tmp_path, "tests.tiny:Tiny")
    assert channels.main(["--checkpoint", str(folder)]) == 2
    assert "no layer of Tiny is called so; time1, time2, stem, head are" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        channels.main(["--checkpoint", str(folder), "--layer", "("])
    assert "must be a regular expression, got '('" in capsys.readouterr().err
