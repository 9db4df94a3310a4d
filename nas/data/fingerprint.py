"""`Fingerprint`: what a training depends on in its data, short enough to be kept beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Digests of a data set; the same for the same data elsewhere, under other names."""

    classes: tuple[str, ...]
    train_images: str
    """Of the bytes of the files, in their order."""
    train_labels: str
    """Of the classes that the labels mean: saving a label in another way changes nothing."""
    validation_images: str
    validation_labels: str

    def difference(self, other: Fingerprint, splits: Sequence[str] = ("train", "validation")) -> str:
        """What `other` has differently in these splits, in a few words; empty when nothing."""
        if self.classes != other.classes:
            return f"the classes were {', '.join(self.classes)} and are {', '.join(other.classes)}"
        kinds = [f"{split}_{what}" for split in splits for what in ("images", "labels")]
        changed = [kind.replace("_", " ") for kind in kinds if getattr(self, kind) != getattr(other, kind)]
        return f"the {' and the '.join(changed)} have changed" if changed else ""
