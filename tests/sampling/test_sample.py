"""bench.sample: samples, times and files; kill and resume; every kind of weights."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench import sample
from bench.cli.options import UsageError
from bench.datasets import images
from bench.records.base import Skipped
from bench.records.quality import Quality
from bench.records.sampling import SamplingCase, SamplingRun
from bench.sampling import chains, features, sample_folder
from bench.store import codec
from bench.training import checkpoint, objectives
from models import Task
from models.contract import build
from models.task import LATENTS_REVERSE_FLOW
from tests.commands import run
from tests.records.examples import SAMPLING
from tests.tiny import Tiny
from tests.training.test_checkpoint import IDENTITY, state_at

TINY = ["--model", "tests.tiny:Tiny", "--res", "64", "--steps", "4", "--batch", "4", "--device", "cpu"]


here = pytest.mark.usefixtures("_here")


def explodes(task: Task) -> nn.Module:
    """Finite on the start of a chain, not finite on its end."""

    class Explodes(Tiny):
        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return torch.exp(super().forward(x, t, y).abs() + 60)

    return Explodes(task)


def pixels() -> Callable[[Tensor], Tensor]:
    """A decoder: eight times the side, three of the channels."""
    return lambda latents: latents[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)


def projected() -> Callable[[Tensor], Tensor]:
    """A decoder with a product, which autocast would round."""
    exact = torch.linspace(0.1, 0.9, 12).reshape(3, 4)

    def decode(latents: Tensor) -> Tensor:
        decoded = torch.einsum("ic,nchw->nihw", exact, latents)
        assert decoded.dtype == torch.float32
        return decoded

    return decode


def only(path: Path, pattern: str) -> Path:
    (found,) = path.glob(pattern)
    return found


def test_whole_chains_are_timed_in_a_worker_and_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "sampled.jsonl"
    asked = [*TINY, "--n", "10", "--out", str(store), "--format", "json"]
    assert run(sample.main, *asked) == 0
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out)
    (made,) = codec.read(store).records
    assert isinstance(made, SamplingRun)
    assert (made.case.objective, made.case.sampler, made.case.steps, made.passes) == (
        "iddpm",
        "ancestral",
        4,
        4,
    )
    assert (made.case.guidance, made.case.guided_channels) == (1.5, 3)
    assert (made.case.images, made.case.batch) == (10, 4)
    assert len(made.times_s) == 3
    assert row["images_per_s"] == 4 / made.median_s
    assert row["median_s"] == sorted(made.times_s)[1]
    assert "weights are random: the speed is real, the images are noise" in printed.err
    assert run(sample.main, *asked) == 0
    assert "1 of 1 were in" in capsys.readouterr().err
    assert codec.read(store).records == [made]


@here
def test_every_option_of_a_chain_makes_another_case(tmp_path: Path) -> None:
    store = tmp_path / "sampled.jsonl"
    variants = [
        [],
        ["--steps", "3"],
        ["--guidance", "1"],
        ["--seed", "1"],
        ["--n", "5"],
        ["--classes", "3", "4"],
        ["--sampler", "ddim"],
        ["--objective", "flow"],
        ["--guided-channels", "4"],
    ]
    for variant in variants:
        assert run(sample.main, *TINY, "--out", str(store), *variant) == 0
    assert len({codec.key(one.case, one.environment) for one in codec.read(store).records}) == len(variants)


@here
def test_a_killed_run_resumes_to_the_same_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*TINY, "--n", "10", "--out-dir"]
    assert run(sample.main, *asked, str(tmp_path / "whole")) == 0
    assert run(sample.main, *asked, str(tmp_path / "killed")) == 0
    killed = tmp_path / "killed"
    kept = (killed / "part-000000.npz").stat().st_mtime_ns
    for gone in ("part-000004.npz", "samples-10x4x8x8.npz"):
        (killed / gone).unlink()
    (killed / "part-000004.npz.part").write_bytes(b"what a kill leaves")
    capsys.readouterr()
    assert run(sample.main, *asked, str(killed)) == 0
    assert f"2 of 3 batches were in {killed} already" in capsys.readouterr().err
    assert (killed / "part-000000.npz").stat().st_mtime_ns == kept
    with (
        np.load(tmp_path / "whole" / "samples-10x4x8x8.npz") as first,
        np.load(killed / "samples-10x4x8x8.npz") as second,
    ):
        np.testing.assert_array_equal(first["arr_0"], second["arr_0"])
        np.testing.assert_array_equal(first["arr_1"], second["arr_1"])
        assert first["arr_0"].dtype == np.float32
        assert first["arr_1"].tolist() == list(range(10))


@here
def test_more_images_are_added_and_the_batch_changes_none(tmp_path: Path) -> None:
    few, more, batches = tmp_path / "few", tmp_path / "few", tmp_path / "batches"
    assert run(sample.main, *TINY, "--n", "3", "--out-dir", str(few)) == 0
    assert run(sample.main, *TINY, "--n", "6", "--out-dir", str(more)) == 0
    assert run(sample.main, *TINY, "--batch", "3", "--n", "6", "--out-dir", str(batches)) == 0
    read = [np.load(folder / "samples-6x4x8x8.npz")["arr_0"] for folder in (more, batches)]
    np.testing.assert_allclose(*read, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(np.load(few / "samples-3x4x8x8.npz")["arr_0"], read[0][:3])


@here
def test_fewer_images_have_the_times_of_their_own_chains(
    tmp_path: Path,
) -> None:
    store, folder = tmp_path / "sampled.jsonl", tmp_path / "drawn"
    asked = [
        *TINY,
        "--decoder",
        "tests.sampling.test_sample:pixels",
        "--out-dir",
        str(folder),
        "--out",
        str(store),
    ]
    assert run(sample.main, *asked, "--n", "10") == 0
    grid = (folder / "grid.png").read_bytes()
    assert run(sample.main, *asked, "--n", "8") == 0
    ten, eight = codec.read(store).records
    assert isinstance(ten, SamplingRun)
    assert isinstance(eight, SamplingRun)
    assert len(ten.times_s) == 3
    assert eight.times_s == ten.times_s[:2]
    assert (folder / "grid.png").read_bytes() == grid
    assert images.read_samples(folder / "samples-8x64x64x3.npz").shape == (8, 64, 64, 3)


@here
def test_a_missing_grid_is_written_with_fewer_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*TINY, "--decoder", "tests.sampling.test_sample:pixels", "--out-dir", str(tmp_path)]
    assert run(sample.main, *asked, "--n", "10") == 0
    (tmp_path / "grid.png").unlink()
    assert run(sample.main, *asked, "--n", "8") == 0
    assert (tmp_path / "grid.png").exists()
    assert "grid.png: the first 8" in capsys.readouterr().err


@here
def test_latents_stay_latents_without_a_decoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(sample.main, *TINY, "--out-dir", str(tmp_path / "latents")) == 0
    assert "this package carries no VAE" in capsys.readouterr().err
    assert not list((tmp_path / "latents").glob("*.png"))
    decoded = tmp_path / "decoded"
    assert (
        run(sample.main, *TINY, "--decoder", "tests.sampling.test_sample:pixels", "--out-dir", str(decoded))
        == 0
    )
    assert images.read_samples(decoded / "samples-4x64x64x3.npz").std() > 0
    assert (decoded / "grid.png").read_bytes().startswith(b"\x89PNG")
    latents = np.load(tmp_path / "latents" / "samples-4x4x8x8.npz")["arr_0"]
    corner = images.to_levels(latents[:, :3])
    np.testing.assert_array_equal(np.load(decoded / "samples-4x64x64x3.npz")["arr_0"][:, ::8, ::8], corner)


@here
def test_quality_records_how_samples_were_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "STEPS", 2)
    (tmp_path / "run").mkdir()
    checkpoint.save(tmp_path / "run", state_at(0))
    folder, store = tmp_path / "drawn", tmp_path / "quality.jsonl"
    chain = ["--weights", str(tmp_path / "run"), "--ema", "0.9999", "--steps", "3", "--batch", "4"]
    chain += ["--guidance", "2", "--classes", "1", "7", "--seed", "5", "--device", "cpu"]
    assert run(sample.main, *chain, "--out-dir", str(folder)) == 0
    drawn = folder / "samples-4x8x8x1.npz"
    other = folder / "samples-of-another.npz"
    np.savez(other, images.read_samples(drawn)[::-1])
    capsys.readouterr()
    asked = [
        "--compare",
        str(drawn),
        str(other),
        "--reference",
        "digits",
        "--features",
        "digits",
        "--out",
        str(store),
    ]
    assert run(sample.main, *asked) == 0
    assert "made by" in capsys.readouterr().out
    ours, theirs = (one for one in codec.read(store).records if isinstance(one, Quality))
    assert re.fullmatch(
        r"tests\.tiny:Tiny, weights \S+\.pt sha256:\w{12}, ema 0\.9999; ancestral of iddpm in 3 steps; "
        r"guidance 2 of 1 channels; seed 5; fp32; classes 1 7",
        ours.case.made,
    )
    assert theirs.case.made == ""


@here
def test_a_decoder_is_not_under_autocast(tmp_path: Path) -> None:
    args = [
        "--precision",
        "bf16",
        "--decoder",
        "tests.sampling.test_sample:projected",
        "--out-dir",
        str(tmp_path / "d"),
    ]
    assert run(sample.main, *TINY, *args) == 0
    assert (tmp_path / "d" / "grid.png").exists()


@here
def test_a_checkpoint_brings_its_objective_and_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    checkpoint.save(tmp_path / "run", state_at(0))
    asked = ["--weights", str(tmp_path / "run"), "--steps", "4", "--batch", "4", "--device", "cpu"]
    assert run(sample.main, *asked, "--out-dir", str(tmp_path / "trained"), "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["model"], row["objective"], row["guided_channels"]) == ("tests.tiny:Tiny", "iddpm", 1)
    assert (row["res"], row["latent_size"]) == (8, 8)
    trained = images.read_samples(tmp_path / "trained" / "samples-4x8x8x1.npz")  # digits: images
    assert run(sample.main, *asked, "--ema", "0.9999", "--out-dir", str(tmp_path / "zeros")) == 0
    zeros = images.read_samples(tmp_path / "zeros" / "samples-4x8x8x1.npz")
    assert not np.array_equal(trained, zeros)
    capsys.readouterr()
    for extra, message in (
        (["--ema", "0.5"], "--ema 0.5: "),
        (["--model", "DiT-S/2"], "--model DiT-S/2: "),
        (["--objective", "flow"], "was trained under iddpm"),
        (["--res", "64"], "was trained at 8; leave it out"),
        (["--out-dir", str(tmp_path / "trained"), "--seed", "1"], "seed is 0 in the folder, 1 requested"),
        (["--classes", "10"], "--classes 10: tests.tiny:Tiny has classes 0 to 9 here"),
    ):
        assert run(sample.main, *asked, *extra) == 2
        assert message in capsys.readouterr().err
    path = only(tmp_path / "run", "*.pt")
    path.write_bytes(path.read_bytes()[:2000])
    assert run(sample.main, *asked) == 2
    assert "damaged" in capsys.readouterr().err


@here
def test_a_flow_checkpoint_is_sampled_by_the_sde(tmp_path: Path) -> None:
    identity = replace(
        IDENTITY, case=replace(IDENTITY.case, recipe=replace(IDENTITY.case.recipe, objective="flow"))
    )
    model = build(
        "tests.tiny:Tiny",
        objectives.task_of(identity.case.recipe, identity.case.latent_size),
        device="cpu",
    )
    state = replace(state_at(0, identity), model=dict(model.state_dict()), ema={})
    (tmp_path / "run").mkdir()
    path = checkpoint.save(tmp_path / "run", state)
    store = tmp_path / "sampled.jsonl"
    args = ["--weights", str(path), "--steps", "4", "--batch", "2", "--device", "cpu", "--out", str(store)]
    assert run(sample.main, *args) == 0
    (made,) = codec.read(store).records
    assert isinstance(made, SamplingRun)
    assert (made.case.objective, made.case.sampler) == ("flow", "sde")
    assert made.case.weights.startswith(path.name)


@here
@pytest.mark.parametrize(
    ("model", "objective", "sampler"),
    [
        ("SiT-S/2", "flow", "sde"),
        ("JiT-Ti/2", "flow-x", "heun-euler"),
        ("MPDiT-Ti", "flow", "sde"),
        ("FCDM-Ti", "iddpm", "ancestral"),
        ("HDiT-Ti/2", "edm", "edm"),
    ],
)
def test_a_network_is_sampled_as_it_was_published(model: str, objective: str, sampler: str) -> None:
    parsed = sample.parser().parse_args(["--model", model, "--res", "64", "--steps", "2", "--device", "cpu"])
    ((case, _),) = sample.plan(parsed)
    assert (case.objective, case.sampler) == (objective, sampler)


def test_a_velocity_toward_the_noise_is_turned_around() -> None:
    seen: list[Tensor] = []

    def toward_noise(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        seen.append(t)
        return x

    case = replace(SAMPLING.case, sampler="euler", steps=2, guidance=1.0)
    drawer = chains.Drawer(case, toward_noise, LATENTS_REVERSE_FLOW, None)
    x = torch.ones(2, 4, 32, 32)
    velocity = drawer.predict(torch.zeros(2, dtype=torch.int64))(x, torch.tensor([0.25, 0.25]))
    assert torch.equal(velocity, -x)
    assert seen[0].tolist() == [0.75, 0.75]


@here
def test_a_network_without_null_class_is_not_guided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = replace(
        IDENTITY, case=replace(IDENTITY.case, recipe=replace(IDENTITY.case.recipe, label_dropout=0.0))
    )
    path = checkpoint.save(tmp_path, state_at(0, identity))
    asked = ["--weights", str(path), "--steps", "4", "--batch", "2", "--device", "cpu"]
    for guidance in ([], ["--guidance", "0"]):
        assert run(sample.main, *asked, *guidance) == 2
        err = capsys.readouterr().err
        assert "was trained with --label-dropout 0" in err
        assert "--guidance 1 would work" in err
    assert run(sample.main, *asked, "--guidance", "1") == 0


@here
def test_weights_in_our_names_give_their_own_samples(tmp_path: Path) -> None:
    torch.manual_seed(7)  # random weights are those of 0
    model = build("tests.tiny:Tiny", Task(latent_size=8), device="cpu")
    torch.save(model.state_dict(), tmp_path / "own.pt")
    own, fresh = tmp_path / "own", tmp_path / "fresh"
    assert run(sample.main, *TINY, "--weights", str(tmp_path / "own.pt"), "--out-dir", str(own)) == 0
    assert run(sample.main, *TINY, "--out-dir", str(fresh)) == 0
    drawn = [np.load(folder / "samples-4x4x8x8.npz")["arr_0"] for folder in (own, fresh)]
    assert np.isfinite(drawn[0]).all()
    assert not np.array_equal(*drawn)


@here
def test_bfloat16_is_near_float32(tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        args = ["--precision", precision, "--out-dir", str(tmp_path / precision)]
        assert run(sample.main, *TINY, *args) == 0
    exact, rounded = (
        np.load(tmp_path / precision / "samples-4x4x8x8.npz")["arr_0"] for precision in ("fp32", "bf16")
    )
    assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()


class WeightCasts(TorchDispatchMode):
    """Counts how often a parameter is cast to another type."""

    count = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - the dispatcher's own signature
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        casts = (torch.ops.aten.to, torch.ops.aten._to_copy)  # the first under inference_mode
        self.count += func.overloadpacket in casts and isinstance(args[0], nn.Parameter)
        return func(*args, **(kwargs or {}))


class CountsCasts(Tiny):
    """Records the casts of its parameters in every pass on real tensors."""

    passes: ClassVar[list[int]] = []

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        with WeightCasts() as casts:
            out = super().forward(x, t, y)
        if not x.is_meta:
            self.passes.append(casts.count)
        return out


@here
def test_weights_are_cast_in_the_first_pass_alone() -> None:
    CountsCasts.passes.clear()
    args = ["--model", "tests.sampling.test_sample:CountsCasts", *TINY[2:], "--n", "8", "--precision", "bf16"]
    assert run(sample.main, *args) == 0
    first, *others = CountsCasts.passes
    assert first > 0
    assert others == [0] * (chains.WARM_UP - 1 + 2 * 4)


@here
def test_a_network_that_takes_vectors_is_given_vectors(tmp_path: Path) -> None:
    args = [*TINY, "--model", "tests.tiny:TakesVectors", "--out-dir", str(tmp_path / "vectors")]
    assert run(sample.main, *args[2:]) == 0
    assert np.load(tmp_path / "vectors" / "samples-4x4x8x8.npz")["arr_1"].tolist() == [0, 0, 0, 0]


@here
def test_samples_that_are_not_finite_are_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*TINY, "--model", "tests.sampling.test_sample:explodes", "--out-dir", str(tmp_path / "none")]
    store = tmp_path / "sampled.jsonl"
    assert run(sample.main, *args[2:], "--out", str(store)) == 0
    assert "not finite" in capsys.readouterr().out
    (skipped,) = codec.read(store).records
    assert isinstance(skipped, Skipped)
    assert "samples from image 0 on in fp32 hold inf or NaN after 4 steps" in skipped.reason
    assert [path.name for path in (tmp_path / "none").iterdir()] == ["about.json"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--sampler", "heun"], "--sampler: iddpm has ancestral, ddim, got heun"),
        (["--steps", "1001"], "--steps: must be from 2 to 1000 with ancestral, got 1001"),
        (["--guidance", "-1"], "--guidance: must be a number of at least 0"),
        (["--guided-channels", "5"], "--guided-channels 5: tests.tiny:Tiny has 4 here"),
        (["--ema", "0.9"], "--ema 0.9: belongs to --weights of a checkpoint of bench.convergence"),
        (
            ["--decoder", "tests.tiny:absent", "--out-dir", "x"],
            "--decoder tests.tiny:absent: tests.tiny has no",
        ),
        (["--decoder", "nonsense", "--out-dir", "x"], "--decoder nonsense: must be my_pkg.my_mod:factory"),
        (["--decoder", "tests.sampling.test_sample:pixels"], "belongs to --out-dir"),
        (["--batch", "2", "4", "--out-dir", "x"], "holds the samples of one case, got 2 combinations"),
        (["--cuda-graphs"], "--cuda-graphs: bench.sample does not record chains"),
        (["--weights", "absent.pt"], "--weights: absent.pt: no such file"),
        (["--weights", "tests"], "--weights tests: holds no checkpoint of bench.convergence"),
        (["--out-dir", "tests"], "--out-dir tests: holds other files; a new folder would work"),
        (["--model", "ADM-up-64-256", "--res", "256"], "needs a low-resolution image"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = dict(zip(TINY[::2], TINY[1::2], strict=True))
    words = [word for flag, value in usual.items() if flag not in args for word in (flag, value)]
    assert run(sample.main, *words, *args) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not Path("x").exists()


def test_a_folder_is_locked_for_one_process(tmp_path: Path) -> None:
    sample_folder.claim(tmp_path / "samples", {"steps": 4})
    with (
        sample_folder.locked(tmp_path / "samples"),
        pytest.raises(ValueError, match="another process is making samples in it"),
        sample_folder.locked(tmp_path / "samples"),
    ):
        pass


def test_a_folder_of_a_version_without_decoders_goes_on(tmp_path: Path) -> None:
    sample_folder.claim(tmp_path / "samples", {"steps": 4})
    sample_folder.claim(tmp_path / "samples", {"steps": 4, "decoder": None})
    with pytest.raises(ValueError, match="decoder is None in the folder, a:b requested"):
        sample_folder.claim(tmp_path / "samples", {"steps": 4, "decoder": "a:b"})


def test_a_damaged_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part-000000.npz").write_bytes(b"not an archive")
    with pytest.raises(ValueError, match=r"part-000000\.npz: not a part of samples.*remove it"):
        sample_folder.read(tmp_path, 0)


def test_a_sweep_gets_every_combination_and_no_samples() -> None:
    args = sample.parser().parse_args([*TINY, "--batch", "2", "4", "--precision", "fp32", "bf16"])
    cases = [job.case for job in sample.jobs(args)]
    assert [(case.batch, case.precision) for case in cases if isinstance(case, SamplingCase)] == [
        (2, "fp32"),
        (2, "bf16"),
        (4, "fp32"),
        (4, "bf16"),
    ]
    with pytest.raises(UsageError, match="a sweep keeps no samples"):
        sample.jobs(sample.parser().parse_args([*TINY, "--out-dir", "x"]))
