"""Models of the two methods; each name is imported when first used, so that one model does not load all libraries.

A file per network, as published or as small. Nothing here reads a video, trains or knows a data set.
"""

from importlib import import_module

_HOME = {
    "TimeSformer": "timesformer",
    "DPC": "dpc",
    "SceneEncoder": "scene",
    "ContextGate": "gates",
    "Detector": "detector",
    "AnomalyCLIP": "anomaly_clip",
    "build_clip": "text",
    "build_projection": "projection",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    """Import ``name`` from its module (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
