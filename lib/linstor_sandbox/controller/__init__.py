"""LINSTOR's controller: one module per topic of its REST API."""

from __future__ import annotations

from . import (  # noqa: F401 - importing a module registers its routes
    clone,
    connections,
    definitions,
    groups,
    nodes,
    placement,
    resources,
    restore,
    snapshots,
    system,
    toggle,
    volumes,
)
from .base import Controller, Request, Response

__all__ = ["Controller", "Request", "Response"]
