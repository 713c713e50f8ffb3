"""The training loop, its optimizer and schedule, its state for resuming, torch.compile."""
