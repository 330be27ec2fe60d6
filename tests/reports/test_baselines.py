"""Published data: completeness, printed text, and the fill rule of the golden files."""

import csv
import itertools
import re
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest

from baselines import load

MODELS = (
    "FCDM-S",
    "DiT-S/2",
    "DiCo-S",
    "DiC-S",
    "DiS-S/2",
    "DiG-S/2",
    "U-DiT-S",
    "MDT-S/2",
    "MDTv2-S/2",
    "SiT-S/2",
)
CSV_FILES = sorted(path for path in load.ROOT.glob("**/*.csv"))


@pytest.mark.parametrize("path", CSV_FILES, ids=lambda path: path.stem)
def test_every_row_of_every_csv_file_names_its_source(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows or path.stem == "confirmed"  # nothing is confirmed yet
    assert all(row["source"].strip() for row in rows)


def test_every_published_file_has_its_conditions_and_the_reverse() -> None:
    files = {path.stem for path in CSV_FILES if "_table" in path.stem}
    tables = load.tables()
    assert {table.id for table in tables} == files
    assert len(tables) == 31
    assert all(table.paper and table.title and table.subject and table.rows for table in tables)


def test_conditions_are_blank_where_the_paper_says_nothing() -> None:
    dico, fcdm = load.table("dico_table01"), load.table("fcdm_table03")
    assert (dico.res_px, dico.device, dico.precision, dico.batch) == ("256", "A100", "fp32", "64")
    assert (fcdm.res_px, fcdm.device, fcdm.precision, fcdm.batch) == ("256", "", "", "64")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("400K", 400_000.0),
        ("1.3M", 1_300_000.0),
        ("1.0B", 1e9),
        ("12.20", 12.2),
        ("1e-4", 1e-4),
        ("", None),
        ("[5, 4, 4, 4, 4]", None),
        ("DiT-S/2", None),
        ("7x7 DWConv", None),
    ],
)
def test_printed_numbers_parse_and_other_text_does_not(text: str, value: float | None) -> None:
    assert load.number(text) == value


def test_a_cell_keeps_the_printed_text_beside_the_number() -> None:
    row = next(row for row in load.table("fcdm_table08").rows if row["model"].as_printed == "FCDM-B")
    assert row["gflops"] == load.Published(value=12.2, as_printed="12.20")
    assert row["gflops"].decimals == 2


def test_every_remark_reaches_a_cell_with_each_of_its_patterns() -> None:
    cells = {
        ":".join(part)
        for table in load.tables()
        for row, column in itertools.product(table.rows, table.columns)
        for part in (
            (table.id, column, load.row_name(row)),
            (
                table.id,
                column,
                load.row_name(row),
                row["train_steps"].as_printed if "train_steps" in row else "",
            ),
        )
    }
    for remark in load.remarks():
        for pattern in remark.cells:
            assert any(fnmatchcase(cell, pattern) for cell in cells), (remark.id, pattern)


def test_a_remark_touches_the_rows_it_names_and_no_others() -> None:
    vae = next(remark for remark in load.remarks() if "EQ-VAE" in remark.statement)
    touched = [
        (row["model"].as_printed, row["train_steps"].as_printed)
        for row in load.table("fcdm_table03").rows
        if vae.touches("fcdm_table03", "fid", row)
    ]
    assert touched == [("FCDM-XL", "400K")]


def test_unknown_names_are_refused_with_a_suggestion() -> None:
    with pytest.raises(
        ValueError, match=r"fcdm_table3: no such published table; did you mean .*fcdm_table03"
    ):
        load.table("fcdm_table3")
    with pytest.raises(ValueError, match="fcdm-s: no such manifest; did you mean FCDM-S"):
        load.manifest("fcdm-s")
    with pytest.raises(
        ValueError, match=r"DiT-S: no such golden output at latent 32; did you mean .*DiT-S/2"
    ):
        load.golden("DiT-S")


def test_manifest_totals_equal_the_sum_of_their_shapes() -> None:
    macs = load.macs()
    assert {latent for _, latent in macs} == {32, 64, 128}
    for model in {model for model, _ in macs}:
        manifest = load.manifest(model)
        sizes = {key: int(np.prod(shape)) for key, shape in manifest.parameters.items()}
        assert manifest.model == model
        assert manifest.params_total == sum(sizes.values()) == macs[model, manifest.latent][0]
        frozen = manifest.params_total - manifest.params_trainable
        assert frozen in (0, sizes.get("pos_embed"), sizes.get("mask_token"))


def test_products_of_sizes_are_a_few_for_each_block() -> None:
    with (load.ROOT / "traced_sizes.csv").open(encoding="utf-8", newline="") as file:
        sizes = {(row["model"], row["latent"]): int(row["macs"]) for row in csv.DictReader(file)}
    for model, latent in sizes:
        blocks = {key.split(".norm1")[0] for key in load.manifest(model).shapes if ".norm1." in key}
        if model.startswith("U-ViT"):
            assert sizes[model, latent] == 4 * (len(blocks) + 1)
    layers = {24: 4, 48: 24, 96: 16}  # of U-DiT, two a block, by the channels of a head
    assert all(sizes[f"U-DiT-{size}", "32"] == 21 * sum(layers.values()) for size in "SBL")
    assert sizes["U-DiT-S", "64"] == sum(n * (22 + d // 4) for d, n in layers.items())


def test_digs_terms_add_up_to_its_totals() -> None:
    traced = ("q", "k", "v", "g", "o", "gk", "mlp_gate", "dw", "ada", "patch", "temb", "final")
    terms = load.dig_macs()
    assert len(terms) == 4 * 3
    for (model, latent), count in terms.items():
        assert count["traced_matmul_conv"] == sum(count[term] for term in traced)
        assert count["torchprofile_approx"] == count["traced_matmul_conv"] + count["muls"] + 8 * latent**2
        assert count["matmul_conv_all"] == count["traced_matmul_conv"] + count["mlp_down"]
        assert count["matmul_conv_gla_all"] == count["matmul_conv_all"] + count["gla_core"]
        if latent == 32:
            assert count["params"] == load.manifest(model).params_total


def test_scans_cost_4_macs_per_token_channel_and_state() -> None:
    macs = load.macs_ssm()
    assert {latent for _, latent in macs} == {32, 64}
    for (model, latent), (params, without, whole) in macs.items():
        manifest = load.manifest(model)
        rates = [shape for key, shape in manifest.shapes.items() if re.search(r"A(_b)?_log$", key)]
        sides = {"DiS": (0, 2), "DiM": (3, 5), "DiMSUM": (0, 0)}[model.partition("-")[0]]
        tokens = (latent // 2 + sides[0]) ** 2 + sides[1]
        assert whole - without == 4 * tokens * sum(int(np.prod(shape)) for shape in rates)
        if latent == 32:
            assert params == manifest.params_total == manifest.params_trainable


def test_counts_equal_the_published_gmacs_of_fcdm_and_dico() -> None:
    macs = load.macs()
    for table in (load.table("fcdm_table02"), load.table("dico_table05")):
        for row in table.rows:
            gmacs = macs[row["model"].as_printed, 32][1] / 1e9
            assert f"{gmacs:.{row['gflops'].decimals}f}" == row["gflops"].as_printed


FILLED = [  # key, shape, first four values, float64 sum
    (
        "x_embedder.weight",
        (128, 4, 3, 3),
        (-3.3506728e-3, 9.6264526e-2, 4.1100949e-2, -6.0942121e-2),
        11.521082,
    ),
    ("x_embedder.bias", (128,), (-4.4599432e-3, 3.3924445e-3, 2.5487775e-3, 3.3681992e-2), -0.21273992),
    ("latent.0.grn.gamma", (1, 1536, 1, 1), (-0.68526196, 0.50967705, 0.24215655, -0.35085613), 24.500714),
    ("enc_blocks.0.0.conv.norm0.weight", (96,), (1.0311311, 0.89763707, 0.88307106, 1.1074123), 94.599717),
    (
        "blocks.0.attn.qkv.weight",
        (1152, 384),
        (2.7440344e-3, 6.9357906e-3, -4.8829362e-2, 4.1809054e-3),
        -33.747365,
    ),
]


@pytest.mark.parametrize(("key", "shape", "head", "total"), FILLED)
def test_the_fill_rule_gives_its_check_values(
    key: str, shape: tuple[int, ...], head: tuple[float, ...], total: float
) -> None:
    filled = load.fill({key: shape, "pos_embed": (1, 4, 8)})
    assert list(filled) == [key]
    assert filled[key].dtype == np.float32
    np.testing.assert_array_equal(filled[key].ravel()[:4], np.array(head, np.float32))
    assert filled[key].astype(np.float64).sum() == pytest.approx(total, rel=1e-7)


@pytest.mark.parametrize("model", MODELS)
def test_filled_weights_have_the_digest_of_the_golden_file(model: str) -> None:
    golden = load.golden(model)
    filled = load.fill(load.manifest(model).parameters)
    assert load.fill_sha256(filled) == golden.meta["fill_sha256"]
    assert golden.meta["model"] == model


@pytest.mark.parametrize("model", MODELS)
def test_golden_inputs_are_those_the_readme_describes(model: str) -> None:
    golden = load.golden(model, latent=32)
    drawn = np.random.Generator(np.random.PCG64(0)).standard_normal((2, 4, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(golden.x, drawn)
    assert golden.t.tolist() == ([0.25, 0.875] if model.startswith("SiT") else [3, 977])
    assert golden.y.tolist() == [1, 207]
    channels = 4 if model.startswith("SiT") else 8
    assert golden.out.shape == golden.out_f32.shape == (2, channels, 32, 32)
    error = golden.out - golden.out_f32
    assert np.sqrt((error**2).mean() / (golden.out**2).mean()) < 2e-6


def test_gpu_peaks_are_numbers_with_a_source() -> None:
    gpus = load.gpus()
    assert gpus["A100 SXM4 80GB"].mem_bw_gbs == 2039
    assert gpus["A100 SXM4 80GB"].fp8_dense_tflops is None
    assert all(gpu.fp32_tflops and gpu.sms > 0 and "http" in gpu.source for gpu in gpus.values())
    assert gpus["RTX 5090"].tf32_dense_tflops is None  # not printed anywhere that was found


@pytest.mark.parametrize("gpu", load.gpus().values(), ids=lambda gpu: gpu.gpu)
def test_bf16_peaks_are_dense_twice_those_of_tf32(gpu: load.Gpu) -> None:
    assert gpu.bf16_dense_tflops is not None
    if gpu.tf32_dense_tflops is not None:
        assert gpu.bf16_dense_tflops == pytest.approx(2 * gpu.tf32_dense_tflops, rel=0.03)
