"""Records that are images."""

from raymia.modalities.images.modality import Images

__all__ = ["Images"]
