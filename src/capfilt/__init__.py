"""capfilt: captions that fit their images. Bootstraps vision-language models from noisy pairs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capfilt.predict.use import Model, load

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """`load` and `Model` come with torch, so only when they are asked for."""
    if name in ("Model", "load"):
        from capfilt.predict import use

        return getattr(use, name)
    raise AttributeError(f"module 'capfilt' has no attribute {name!r}")
