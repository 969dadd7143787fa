"""Physical removal: two surgeries, each the cross-check of the other."""
