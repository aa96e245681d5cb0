from __future__ import annotations

from training.caching import compiled_once  # noqa: F401
