"""Where things are kept that belong to the machine and not to a run."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """$SECATEUR_CACHE, or else ``secateur`` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SECATEUR_CACHE") or Path(home) / "secateur")
