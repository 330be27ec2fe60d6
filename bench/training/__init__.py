"""What training a backbone takes: data, objectives, samplers, the loop, its checkpoints."""
