"""What brings a pruned model back without gradients."""
