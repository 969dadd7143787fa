"""Sections of recipes that need a file of their own; ``config`` puts them together."""
