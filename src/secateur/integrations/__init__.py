"""Callbacks for training loops of other libraries; each file imports its library when it is called.

huggingface.py  for ``transformers.Trainer``
lightning.py    for ``lightning.Trainer``
"""
