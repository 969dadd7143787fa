"""Batches, losses, augmentation, optimizers, and a fine-tuning loop that can be interrupted."""
