"""Networks of diffusers by class and by config.json."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.sampling import autoencoder
from models.contract import build, check
from models.registry import printed, published_task
from models.task import LATENTS, PIXELS, Task
from models.users.calls import notes_of
from tests.records.examples import PICTURE

BLOCKS = (
    "block_out_channels=(32,64),down_block_types=(DownBlock2D,DownBlock2D),"
    "up_block_types=(UpBlock2D,UpBlock2D)"
)
SAMPLE = ".sample of its output is the sample"
CONFIG = {
    "_class_name": "DiTTransformer2DModel",
    "_diffusers_version": "0.20.0",
    "key_of_another_version": 1,
    "num_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "sample_size": 16,
    "out_channels": 8,
}


@pytest.mark.parametrize("text", ["not json", "[]", "{}"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: not (JSON|a config\.json of diffusers)"):
        published_task(f"{tmp_path}/config.json")


def test_networks_of_diffusers_are_built_and_called(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    config = f"{tmp_path}/config.json"
    dit = "diffusers:DiTTransformer2DModel(num_layers=1,num_attention_heads=2,attention_head_dim=8)"
    unet = f"diffusers:UNet2DModel({BLOCKS},norm_num_groups=8,layers_per_block=1"
    unlabelled = "called with sample=x, timestep=t, without labels"
    expected = {
        dit: (LATENTS, [SAMPLE]),
        config: (Task(latent_size=16, factor=16), [SAMPLE]),
        f"{config}(in_channels=3,out_channels=3)": (Task(latent_size=16, in_channels=3, factor=1), [SAMPLE]),
        f"{unet})": (LATENTS, [SAMPLE]),
        f"{unet},num_class_embeds=null,in_channels=3)": (PIXELS, [unlabelled, SAMPLE]),
    }
    for given, (task, notes) in expected.items():
        name = printed(given)
        assert printed(name) == name
        assert published_task(name) == task
        small = task.at(8 * task.factor, 8 * task.factor)
        assert notes_of(check(name, small, either_sigma=True)) == notes
        out = build(name, small, "cpu")(
            torch.zeros(1, small.in_channels, 8, 8), torch.ones(1), torch.ones(1).long()
        )
        assert out.shape[2:] == (8, 8)
    with pytest.raises(ValueError, match="did you mean DiTTransformer2DModel"):
        build("diffusers:DiTTransformer2D", LATENTS)


def test_the_decoder_of_pictures_has_the_published_shape() -> None:
    pytest.importorskip("diffusers")
    params, macs = autoencoder.count(PICTURE.case)
    assert params == 49_490_179 + 4 * 4 + 4  # Stable Diffusion's decoder, and the 1x1 convolution before it
    assert 310e9 < macs < 312e9


def test_pictures_have_the_precision_and_layout_of_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    narrow = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    monkeypatch.setitem(autoencoder.SHAPES, "sd-f8", {**autoencoder.SHAPES["sd-f8"], **narrow})
    decode = autoencoder.decoder_of(replace(PICTURE.case, precision="bf16", channels_last=True))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        images = decode(torch.zeros(2, 4, 4, 8))
    assert images.shape == (2, 3, 32, 64)
    assert images.dtype == torch.bfloat16
    assert images.is_contiguous(memory_format=torch.channels_last)
