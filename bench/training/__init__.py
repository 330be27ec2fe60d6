"""Training of a backbone: objectives, batches, the loop, checkpoints, and analyses of trained networks."""
