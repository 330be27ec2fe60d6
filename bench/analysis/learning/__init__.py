"""Learning curves: losses of training runs compared at equal cost, and rankings by loss."""
