"""Records that are texts."""

from raymia.modalities.texts.modality import Texts

__all__ = ["Texts"]
