"""Benchmarks: ``python -m benchmarks [name ...]`` writes results/*.jsonl and docs/results/*.md."""
