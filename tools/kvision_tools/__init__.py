"""Commands to train, evaluate, predict and look."""
