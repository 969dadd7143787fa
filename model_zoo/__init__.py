"""Every architecture of the libraries, pruned at random and checked against zeroed slices.

``python -m model_zoo`` runs what is not in ``results/`` yet, each model in a process of its own.
"""
