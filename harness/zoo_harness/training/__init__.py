"""Train networks: the training loop, the optimizer, the state for resuming, the log of steps, and torch.compile."""
