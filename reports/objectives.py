"""Names of training objectives and of their levels of noise."""

NAMES = {
    "iddpm": "diffusion",
    "flow": "flow matching",
    "flow-x": "flow matching of predicted data",
    "edm": "denoising (EDM)",
}
# as a share; t of a flow runs from noise to data
LEVELS = {"iddpm": "timesteps", "flow": "1 - t", "flow-x": "timesteps by noise", "edm": "noise levels"}
# as in Probe.levels
THOUSANDTHS = {
    "iddpm": "timestep",
    "flow": "1000 (1 - t)",
    "flow-x": "1000 (1 - t)",
    "edm": "thousandth of noise levels",
}
