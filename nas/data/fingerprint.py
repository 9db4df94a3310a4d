"""`Fingerprint`: digests of the data that a training depends on, short enough to be stored with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Digests of a data set; equal for the same data in other places and under other names."""

    classes: tuple[str, ...]
    train_images: str
    """Digest of the bytes of the image files, in order."""
    train_labels: str
    """Digest of the classes in the labels: saving a label in another format changes nothing."""
    validation_images: str
    validation_labels: str

    def difference(self, other: Fingerprint, splits: Sequence[str] = ("train", "validation")) -> str:
        """How `other` differs in these splits, in a few words; empty if it does not."""
        if self.classes != other.classes:
            return f"the classes were {', '.join(self.classes)} and are {', '.join(other.classes)}"
        kinds = [f"{split}_{what}" for split in splits for what in ("images", "labels")]
        changed = [kind.replace("_", " ") for kind in kinds if getattr(self, kind) != getattr(other, kind)]
        return f"the {' and the '.join(changed)} have changed" if changed else ""
