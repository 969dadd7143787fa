"""What runs a model: PyTorch itself, and the runtimes that exported files live on."""
