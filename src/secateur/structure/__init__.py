"""What belongs together: axes, tracing, rules, groups."""
