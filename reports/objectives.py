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
IN_FULL = {
    "iddpm": "iDDPM: 1000 linear steps, noise predicted, variance learned; L_simple + L_vlb",
    "flow": "flow matching: linear path, velocity",
    "flow-x": "flow matching: linear path, data predicted, squared error of the velocity that follows",
    "edm": "EDM: lognormal noise levels, data predicted, squared error weighted by noise level",
}
