"""Survey of a data set: every file is decoded once, faulty ones are refused by name, and oddities are reported.

Files are decoded just as for both loaders (`nas.data.decoded`), so a data set that passes can be trained on. Findings
are stored with the decoded pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nas.data.dataset import IGNORE, Dataset, SplitName
from nas.data.decoded import DecodedPairs
from nas.data.decoding import Convention
from nas.data.fingerprint import Fingerprint
from nas.data.long_work import Guard
from nas.data.sample import Sample, digest
from nas.errors import DataError
from nas.host.cores import usable_cores
from nas.host.words import counted

BOTH: tuple[SplitName, ...] = ("train", "validation")
STRETCHED = 1.5
"""If one side of a picture is scaled by this factor more than the other, that is probably a mistake."""
MOSTLY_VOID = 0.5
NAMES_OF_VOID = frozenset({"void", "ignore", "ignored", "unlabeled", "unlabelled"})
FILES_AT_ONCE = 4
"""Files per core that are decoded before a process that waits to time a network gets its turn."""
MOST_NAMED = 5  # classes or values listed in a message

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Found:
    """The contents of one split."""

    images: int
    sizes: tuple[tuple[tuple[int, int], int], ...]
    """Heights and widths in pixels, each with the number of images that have them, the most frequent first."""
    class_pixels: tuple[int, ...]
    class_images: tuple[int, ...]
    """Number of images in which each class occurs."""
    void_pixels: int
    conventions: tuple[tuple[Convention, int], ...]
    """The ways in which label files store their values, each with the number of files."""

    @property
    def labelled_pixels(self) -> int:
        """Number of pixels that are labelled with a class."""
        return sum(self.class_pixels)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The contents of a data set, and its oddities."""

    dataset: Dataset
    splits: tuple[tuple[SplitName, Found], ...]
    notes: tuple[str, ...]
    """Sentences for the user: what was left out on loading, and what is odd."""
    fingerprint: Fingerprint


def check(
    dataset: Dataset,
    splits: Sequence[SplitName] = BOTH,
    guard: Guard = nullcontext,
    count: Callable[[int], None] = lambda images: None,
) -> Findings:
    """Decode every image and label of the splits, and report what they hold. `guard()` is entered around every few
    files, and `count` receives the number of images in them.

    Raises: DataError naming the first file that is missing, unreadable, truncated, not of its counterpart's size, or
    holds a label value that belongs to no class; when a split is empty or holds no labelled pixel; when there are fewer
    than two classes to tell apart; and when labels store their values in contradictory ways.
    """
    samples = {name: _samples(dataset, name, guard, count) for name in splits}
    found = tuple((name, _found(each)) for name, each in samples.items())
    everything = [sample for each in samples.values() for sample in each]
    _require_labels(dataset, found, everything)
    _require_one_convention(everything)
    notes = (
        *dataset.notes,
        *_odd_classes(dataset, found, everything),
        *_odd_labels(everything),
        *_odd_images(dataset, everything),
        *_copied(samples),
        *_shared(samples),
    )
    return Findings(dataset=dataset, splits=found, notes=notes, fingerprint=_fingerprint(dataset, samples))


def class_shares(dataset: Dataset, guard: Guard = nullcontext) -> NDArray[np.float64]:
    """Share of each class among the labelled pixels of the train split, (C,).

    Raises: DataError as `class_pixels` does.
    """
    return shares_of(class_pixels(dataset, guard))


def shares_of(pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each class among labelled pixels, (C,), from their numbers per image, (images, C)."""
    return np.asarray(pixels.sum(axis=0) / pixels.sum(), dtype=np.float64)


def images_of_classes(pixels: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    """For each class, the images that hold it, from the numbers of labelled pixels per image, (images, C)."""
    return tuple(tuple(np.flatnonzero(held).tolist()) for held in pixels.T)


def class_pixels(dataset: Dataset, guard: Guard = nullcontext) -> NDArray[np.int64]:
    """Labelled pixels of each class in each image of the train split, (images, C). Images are not read; labels are
    decoded unless findings on them are stored. `guard()` is entered around every few.

    Raises: DataError when a label is bad, or all labels are void everywhere.
    """
    pairs = _pairs(dataset, "train")
    pixels = np.array(_in_threads(pairs.class_pixels, range(len(pairs)), guard), dtype=np.int64)
    if not pixels.any():
        raise DataError(f"{dataset.name}: every label of the train split is void everywhere; expected some classes")
    return pixels


def _samples(dataset: Dataset, name: SplitName, guard: Guard, count: Callable[[int], None]) -> list[Sample]:
    pairs = _pairs(dataset, name)
    return _in_threads(pairs.sample, range(len(pairs)), guard, count)


def _pairs(dataset: Dataset, name: SplitName) -> DecodedPairs:
    if not len(dataset.split(name)):
        raise DataError(f"{dataset.name}: the {name} split is empty; expected at least one image with its label")
    return DecodedPairs(dataset, name)


def _found(samples: Sequence[Sample]) -> Found:
    pixels = np.array([sample.pixels for sample in samples])  # (images, C)
    everything = sum(sample.size[0] * sample.size[1] for sample in samples)
    return Found(
        images=len(samples),
        sizes=tuple(Counter(sample.size for sample in samples).most_common()),
        class_pixels=tuple(pixels.sum(axis=0).tolist()),
        class_images=tuple((pixels > 0).sum(axis=0).tolist()),
        void_pixels=everything - int(pixels.sum()),
        conventions=tuple(Counter(sample.convention for sample in samples).most_common()),
    )


def _require_labels(dataset: Dataset, found: Iterable[tuple[SplitName, Found]], samples: Sequence[Sample]) -> None:
    values = sorted({value for sample in samples for value in sample.values})
    occurring: set[int] = set()
    for name, split in found:
        if not split.labelled_pixels:
            raise DataError(
                f"{dataset.name}: every label of the {name} split is void everywhere; expected some classes, "
                f"got the label values {_listed(values)}"
            )
        occurring |= {index for index, count in enumerate(split.class_pixels) if count}
        if name == "train" and len({index for index, count in enumerate(split.class_pixels) if count}) < 2:
            break
    else:
        if len(occurring) >= 2:
            return
    only = dataset.classes[min(occurring)]
    hint = "; 255 means void: if it stands for a class, save it as that class's number" if IGNORE in values else ""
    raise DataError(
        f"{dataset.name}: expected at least two classes in the labels, got only '{only}' (label values "
        f"{_listed(values)}), which any network gets right{hint or '; check the labels and the class list'}"
    )


def _require_one_convention(samples: Sequence[Sample]) -> None:
    """Refuse grey values saved as RGB in one file and colours of classes in another: each could be read in two ways."""
    first: dict[str, Sample] = {}
    for sample in samples:
        first.setdefault(sample.convention, sample)
    if {"colours", "grey as RGB"} <= first.keys():
        raise DataError(
            f"{first['grey as RGB'].label_path}: expected the colours of the class list as in "
            f"{first['colours'].label_path}, got grey values that are not in it; save all labels in the same way"
        )


def _odd_classes(
    dataset: Dataset, found: Sequence[tuple[SplitName, Found]], samples: Sequence[Sample]
) -> Iterable[str]:
    values = sorted({value for sample in samples for value in sample.values})
    missing = {name: {index for index, pixels in enumerate(split.class_pixels) if not pixels} for name, split in found}
    everywhere = set.intersection(*missing.values())
    if everywhere:
        hint = "; 255 is void: if it stands for one of them, save it as that class's number" if IGNORE in values else ""
        yield (
            f"no label holds {_names(dataset, everywhere)}; the label values found are {_listed(values)}: "
            f"are the names in the order of the values, from 0 on?{hint}"
        )
    void = {index for index, name in enumerate(dataset.classes) if name.strip().lower() in NAMES_OF_VOID}
    if void - everywhere:
        yield (
            f"the class {_names(dataset, void)} is trained and scored like the others; if it means void, list it in "
            "classes.yaml (void: [its name])"
        )
    for name, indices in missing.items():
        if indices - everywhere:
            scored = "its IoU is 0 if a network predicts it anywhere, and it does not count otherwise"
            consequence = "it cannot be learnt" if name == "train" else scored
            yield f"no label of the {name} split holds {_names(dataset, indices - everywhere)}: {consequence}"
    for name, split in found:
        share = split.void_pixels / (split.void_pixels + split.labelled_pixels)
        if share > MOSTLY_VOID:
            yield f"{100 * share:.0f} % of the {name} labels are void, and count neither in training nor in scores"


def _odd_labels(samples: Sequence[Sample]) -> Iterable[str]:
    void = [sample for sample in samples if not any(sample.pixels)]
    if void:
        yield f"{counted(len(void), 'label is', 'labels are')} void everywhere, such as {void[0].label_path}"
    seen: dict[int, tuple[tuple[int, int, int], Path]] = {}
    for sample in samples:
        for value, colour in sample.palette:
            before, path = seen.setdefault(value, (colour, sample.label_path))
            if before != colour:
                yield (
                    f"label value {value} has different colours in the palettes of {path} (#{bytes(before).hex()}) and "
                    f"{sample.label_path} (#{bytes(colour).hex()}): values count, not colours; did a program choose "
                    "the palettes?"
                )
                return


def _odd_images(dataset: Dataset, samples: Sequence[Sample]) -> Iterable[str]:
    turned = Counter(sample.orientation for sample in samples if sample.orientation != 1)
    if turned:
        kinds = ", ".join(f"{count} of orientation {value}" for value, count in sorted(turned.items()))
        yield (
            f"{counted(sum(turned.values()), 'image is', 'images are')} turned as EXIF asks ({kinds}); labels are "
            "expected to fit what viewers show"
        )
    size, count = Counter(sample.size for sample in samples).most_common(1)[0]
    wanted = dataset.size
    ratio = (size[0] / size[1]) / (wanted[0] / wanted[1])
    if max(ratio, 1 / ratio) > STRETCHED:
        swapped = (size[0] - size[1]) * (wanted[0] - wanted[1]) < 0
        advice = (
            f"are height and width swapped? sizes are HxW: {wanted[1]}x{wanted[0]}" if swapped else "is that intended?"
        )
        yield (
            f"{counted(count, 'image is', 'images are')} {size[0]}x{size[1]} (HxW), but seen by networks at "
            f"{wanted[0]}x{wanted[1]}, stretched by {max(ratio, 1 / ratio):.1f}; {advice}"
        )


def _copied(samples: dict[SplitName, list[Sample]]) -> Iterable[str]:
    for name, each in samples.items():
        images = {sample.image_digest for sample in each}
        if len(images) < len(each):
            all_of = f"of the {len(each)} {name} images"
            yield counted(len(each) - len(images), f"{all_of} is a copy of another", f"{all_of} are copies of others")
        telling = [sample for sample in each if np.count_nonzero(sample.pixels) > 1]
        pairs = {(sample.image_digest, sample.label_digest) for sample in telling}
        copies = len(pairs) - len({label for _, label in pairs})
        if copies:
            are_copies = counted(copies, f"{name} label is a copy of another", f"{name} labels are copies of others")
            yield f"{are_copies} although the images differ: are the pairs right?"


def _shared(samples: dict[SplitName, list[Sample]]) -> Iterable[str]:
    if not {"train", "validation"} <= samples.keys():
        return
    digests = {name: [sample.image_digest for sample in each] for name, each in samples.items()}
    again = len({*digests["train"]} & {*digests["validation"]})
    if again:
        are_both = counted(again, "validation image is a training image", "validation images are training images")
        yield f"{are_both} too: such scores say little"


def _fingerprint(dataset: Dataset, samples: dict[SplitName, list[Sample]]) -> Fingerprint:
    def together(name: SplitName, kind: str) -> str:
        return digest(getattr(sample, kind).encode() for sample in samples.get(name, ()))

    return Fingerprint(
        classes=dataset.classes,
        train_images=together("train", "image_digest"),
        train_labels=together("train", "label_digest"),
        validation_images=together("validation", "image_digest"),
        validation_labels=together("validation", "label_digest"),
    )


def _names(dataset: Dataset, indices: Iterable[int]) -> str:
    return _listed([f"'{dataset.classes[index]}'" for index in sorted(indices)])


def _listed(items: Sequence[object]) -> str:
    more = "" if len(items) <= MOST_NAMED else f" and {len(items) - MOST_NAMED} more"
    return ", ".join(map(str, items[:MOST_NAMED])) + more


def _in_threads(
    work: Callable[..., Result],
    items: Sequence[object],
    guard: Guard,
    count: Callable[[int], None] = lambda items: None,
) -> list[Result]:
    """Results of `work` in the order of `items`. A few items at a time are worked on inside a `guard()`, and `count`
    receives their number; the first failure in that order is raised. Pillow decodes outside Python's global lock.
    """
    results: list[Result] = []
    cores = usable_cores()
    with ThreadPoolExecutor(max_workers=cores) as pool:
        for start in range(0, len(items), FILES_AT_ONCE * cores):
            some = items[start : start + FILES_AT_ONCE * cores]
            with guard():
                try:
                    results += pool.map(work, some)
                except BaseException:  # Ctrl-C too: the rest is dropped, and no thread works on past the guard
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
            count(len(some))
    return results
