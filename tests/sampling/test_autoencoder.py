"""bench.sample --autoencoder: whole pictures, timed by stage."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from torch import Tensor, nn

from bench import sample
from bench.records.pictures import PictureRun
from bench.sampling import autoencoder
from bench.store import codec
from tests.commands import run
from tests.sampling.test_sample import TINY

ASKED = [*TINY, "--autoencoder", "sd-f8"]

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="needs the extra diffusers"
)


class Enlarged(nn.Module):
    """In place of the decoder, whose package takes seconds to import: 3 channels, 8 times the side."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.mixed = nn.Conv2d(4, 3, 1)

    def forward(self, latents: Tensor) -> Tensor:
        return self.mixed(latents).repeat_interleave(8, 2).repeat_interleave(8, 3)


@pytest.fixture
def _drawn_here(_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "LatentDecoder", Enlarged)


@needs_diffusers
@pytest.mark.usefixtures("_drawn_here")
def test_stages_of_whole_pictures_are_timed_and_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "pictures.jsonl"
    asked = [*ASKED, "--n", "6", "--out", str(store), "--format", "json"]
    assert run(sample.main, *asked) == 0
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out)
    (made,) = codec.read(store).records
    assert isinstance(made, PictureRun)
    assert (made.case.autoencoder, len(made.times_s), made.passes) == ("sd-f8", 2, 4)
    shares = [row[f"{stage}_share"] for stage in ("noise", "network", "decoder", "rest")]
    assert min(shares) > 0
    assert sum(shares) == pytest.approx(1)
    assert row["images_per_s"] == 4 / made.median_s
    assert row["passes_s"] == [list(times) for times in made.passes_s]
    assert "the decoder of AutoencoderKL" in printed.err
    assert (made.decoder_params, made.decoder_macs) == (4 * 3 + 3, 4 * 3 * 8 * 8)
    assert run(sample.main, *asked) == 0
    assert "1 of 1 were in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "JiT-Ti/2"], "JiT-Ti/2 draws pixels; a model of sd-f8 latents would work"),
        (["--decoder", "tests.tiny:Tiny", "--out-dir", "x"], "leave out --decoder tests.tiny:Tiny"),
        (["--out-dir", "x"], "is timed only, its images are noise; leave out --out-dir x"),
        (["--attention", "math"], "torch chooses the kernels with --autoencoder; leave it out"),
        (["--res", "68"], "--res: must be a multiple of 8 pixels"),
        (["--autoencoder", "f16d32"], "invalid choice: 'f16d32'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(sample.main, *ASKED, *args) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert run(sample.main, *ASKED) == 2
    assert "diffusers is not installed; pip install -e '.[diffusers]' adds it" in capsys.readouterr().err
