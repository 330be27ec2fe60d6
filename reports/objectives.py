"""Names of training objectives and of their levels of noise."""

NAMES = {"iddpm": "diffusion", "flow": "flow matching"}
LEVELS = {"iddpm": "timesteps", "flow": "1 - t"}  # as a share; t of a flow runs from noise to data
THOUSANDTHS = {"iddpm": "timestep", "flow": "1000 (1 - t)"}  # as in Probe.levels
