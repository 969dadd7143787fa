"""What a model costs: parameters, bytes, FLOPs, memory, and time measured in pairs."""
