"""Tasks by name: spaces, resolutions, and the timesteps that networks read."""

import re
from dataclasses import replace

import pytest
import torch

from models.contract import build, check_task, make_inputs
from models.registry import FAMILIES, names, pixel_size, published_task, task_at
from models.task import TASKS, Task, named_task


@pytest.mark.parametrize("name", [name for name in names() if re.search(r"-(img)?\d\d+$", name)])
def test_a_name_with_a_resolution_is_published_at_it(name: str) -> None:
    assert name.endswith(str(published_task(name).res))
    assert task_at(name, 512, 512).res == 512


@pytest.mark.parametrize(
    ("name", "space", "shape", "out_channels"),
    [("sd-f8", "sd-f8", (4, 32), 8), ("f16d32", "f16d32", (32, 16), 32), ("pixels", "pixels", (3, 256), 3)],
)
def test_named_tasks_have_their_shapes(
    name: str, space: str, shape: tuple[int, int], out_channels: int
) -> None:
    task = named_task(name)
    assert (task.space, (task.in_channels, task.height), task.out_channels) == (space, shape, out_channels)
    assert task.res == 256


def test_a_named_task_takes_another_prediction() -> None:
    assert named_task("sd-f8:velocity") == Task(learn_sigma=False, prediction="velocity")
    assert named_task("pixels:epsilon").out_channels == 6
    assert TASKS["sd-f8"] == Task()


@pytest.mark.parametrize("name", ["sd-f9", "sd-f8:", "pixels:noise"])
def test_unknown_task_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: no such task; known are sd-f8, f16d32, pixels"):
        named_task(name)


def test_timesteps_are_those_that_the_network_reads() -> None:
    steps = make_inputs(Task(), 64, "cpu")[1]
    assert steps.dtype == torch.int64
    assert steps.max() > 1
    unit = make_inputs(published_task("SiT-S/2"), 64, "cpu")[1]
    assert unit.is_floating_point()
    assert 0 <= unit.min() < unit.max() <= 1
    sigma = make_inputs(Task(prediction="denoised"), 64, "cpu")[1]
    assert 0 < sigma.min() < 1 < sigma.max()


def test_the_space_of_latents_is_named_by_factor_and_channels() -> None:
    assert published_task("LDM-4").space == "f4d3"
    assert {published_task(name).space for name in ("FCDM-XL", "SiT-S/2")} == {"sd-f8"}
    assert {published_task(name).space for name in ("ADM-64", "ADM-up-64-256")} == {"pixels"}


def test_the_registry_has_the_size_of_every_network_on_pixels() -> None:
    published = {name: family.task_of(name) for family in FAMILIES.values() for name in family.variants}
    own = {name: task.res for name, task in published.items() if task.space == "pixels"}
    assert {name: size for name in published if (size := pixel_size(name)) is not None} == own


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_checks_its_task_before_it_makes_tensors(family: str) -> None:
    name = next(iter(FAMILIES[family].small or FAMILIES[family].variants))
    for side in (published_task(name).height, 31):
        task, found = replace(published_task(name), latent_size=side), []
        for attempt in (build, check_task):
            try:
                attempt(name, task)
                found.append("")
            except ValueError as error:
                found.append(str(error))
        assert found[0] == found[1]
