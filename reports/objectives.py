"""Words for what networks are trained to predict, and for the noise that they see while they are."""

NAMES = {"iddpm": "diffusion", "flow": "flow matching"}
# the level of noise, which rises from 0: a flow's t runs from noise to data
LEVELS = {"iddpm": "timesteps", "flow": "1 - t"}  # as a share of all
THOUSANDTHS = {"iddpm": "timestep", "flow": "1000 (1 - t)"}  # as of a Probe
