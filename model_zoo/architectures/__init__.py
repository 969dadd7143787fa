"""Nets as people write them, one family a file, small enough that a check takes seconds."""
