"""MACs and parameters of the authors' code, counted outside this suite; README.md describes the method."""

from baselines._files import rows


def macs() -> dict[tuple[str, int], tuple[int, int]]:
    """Read (params, MACs) of the authors' models by (model, latent side), batch 1, torchprofile's rules.

    Products of sizes, which a tracer records in addition to the arithmetic (traced_sizes.csv), are left out.
    """
    sizes = {(entry["model"], entry["latent"]): int(entry["macs"]) for entry in rows("traced_sizes.csv")}
    return {
        (entry["model"], int(entry["latent"])): (
            int(entry["params"]),
            int(entry["macs"]) - sizes.get((entry["model"], entry["latent"]), 0),
        )
        for entry in rows("macs.csv")
    }


def macs_unets() -> dict[tuple[str, str, str], tuple[int, int]]:
    """Read (params, MACs) of ADM and LDM-4 by (model, input such as "3x64x64", counter), batch 1."""
    return {
        (entry["model"], entry["input"], entry["counter"]): (int(entry["params"]), int(entry["macs"]))
        for entry in rows("macs_unets.csv")
    }


def dig_macs() -> dict[tuple[str, int], dict[str, int]]:
    """Read the terms of DiG's MACs by (model, latent side), batch 1; README.md defines the terms."""
    return {
        (entry["model"], int(entry["latent"])): {
            term: int(text) for term, text in entry.items() if term not in ("source", "model", "latent")
        }
        for entry in rows("dig_macs.csv")
    }


def macs_ssm() -> dict[tuple[str, int], tuple[int, int, int]]:
    """Read (params, MACs without the scans, with them) of DiS, DiM and DiMSUM by (model, latent side)."""
    return {
        (entry["model"], int(entry["latent"])): (
            int(entry["params"]),
            int(entry["macs_without_scan"]),
            int(entry["macs_with_scan"]),
        )
        for entry in rows("macs_ssm.csv")
    }


def macs_2026() -> dict[tuple[str, int], tuple[int, int, int]]:
    """Read (params, MACs, MACs of products only) of LightningDiT to HDiT by (model, latent side), batch 1.

    MACs follow torchprofile's rules; products are what torch's counter sees.
    """
    return {
        (entry["model"], int(entry["latent"])): (
            int(entry["params"]),
            int(entry["macs"]),
            int(entry["macs_products_only"]),
        )
        for entry in rows("macs_2026.csv")
    }
