"""Models, the mixture loader, the training loop."""
