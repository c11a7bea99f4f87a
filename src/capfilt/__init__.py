"""capfilt: captions that fit their images. Bootstraps vision-language models from noisy pairs."""

__version__ = "0.1.0"
