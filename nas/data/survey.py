"""What a data set holds: every file decoded once, what is wrong refused by name, what is odd said in a sentence.

What is decoded here is what both loaders show (`nas.data.decoded`): whatever passes can be trained on. What was found
is remembered with it.
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

BOTH: tuple[SplitName, ...] = ("train", "validation")
STRETCHED = 1.5
"""A picture whose sides are squeezed this much more one way than the other is likely not meant so."""
MOSTLY_VOID = 0.5
NAMES_OF_VOID = frozenset({"void", "ignore", "ignored", "unlabeled", "unlabelled"})
FILES_AT_ONCE = 4
"""For each core, before whoever waits to time a network is let in."""
MOST_NAMED = 5  # classes or files in a sentence

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one split holds."""

    images: int
    sizes: tuple[tuple[tuple[int, int], int], ...]
    """Heights and widths in pixels, and how many images have them, the most frequent first."""
    class_pixels: tuple[int, ...]
    class_images: tuple[int, ...]
    """In how many images each class occurs."""
    void_pixels: int
    conventions: tuple[tuple[Convention, int], ...]
    """How label files hold their values, and how many do."""

    @property
    def labelled_pixels(self) -> int:
        """Those of a class."""
        return sum(self.class_pixels)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a data set holds, and what is odd about it."""

    dataset: Dataset
    splits: tuple[tuple[SplitName, Found], ...]
    notes: tuple[str, ...]
    """What was left out when it was loaded, and what is odd: sentences for people."""
    fingerprint: Fingerprint


def check(
    dataset: Dataset,
    splits: Sequence[SplitName] = BOTH,
    guard: Guard = nullcontext,
    count: Callable[[int], None] = lambda images: None,
) -> Findings:
    """Opens and decodes every image and label of the splits, and tells what they hold. `guard()` is entered around
    every few of them, and `count` is told of these.

    Raises: DataError naming the first file that is missing, unreadable, truncated, not of its partner's size, or that
    holds a label value that is no class; when a split is empty or holds no labelled pixel; when there are not two
    classes to tell apart; and when labels are held in ways that contradict each other.
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
    """Share of each class in the labelled pixels of the train split, (C,).

    Raises: DataError as `class_pixels` does.
    """
    return shares_of(class_pixels(dataset, guard))


def shares_of(pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each class in labelled pixels (images, C), (C,); void counts neither above nor below."""
    return np.asarray(pixels.sum(axis=0) / pixels.sum(), dtype=np.float64)


def images_of_classes(pixels: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    """Of each class, which images hold some of its labelled pixels (images, C), (C,)."""
    return tuple(tuple(np.flatnonzero(held).tolist()) for held in pixels.T)


def class_pixels(dataset: Dataset, guard: Guard = nullcontext) -> NDArray[np.int64]:
    """Labelled pixels of each class in each image of the train split, (images, C). Images are not looked at; each label
    is decoded where nothing is kept of it. `guard()` is entered around every few.

    Raises: DataError when a label is bad, or all are void everywhere.
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
    hint = "; 255 means void: save what it stands for as the number of its class" if IGNORE in values else ""
    raise DataError(
        f"{dataset.name}: expected at least two classes in the labels, got '{only}' alone (label values "
        f"{_listed(values)}), which any network gets right{hint or '; check the labels and the class list'}"
    )


def _require_one_convention(samples: Sequence[Sample]) -> None:
    """Grey values that were saved as RGB, in one file, and colours of classes in another, are two ways to read both."""
    first: dict[str, Sample] = {}
    for sample in samples:
        first.setdefault(sample.convention, sample)
    if {"colours", "grey as RGB"} <= first.keys():
        raise DataError(
            f"{first['grey as RGB'].label_path}: expected the colours of the class list as in "
            f"{first['colours'].label_path}, got grey values that are none of them; save all labels in one way"
        )


def _odd_classes(
    dataset: Dataset, found: Sequence[tuple[SplitName, Found]], samples: Sequence[Sample]
) -> Iterable[str]:
    values = sorted({value for sample in samples for value in sample.values})
    missing = {name: {index for index, pixels in enumerate(split.class_pixels) if not pixels} for name, split in found}
    everywhere = set.intersection(*missing.values())
    if everywhere:
        hint = "; 255 is void: if it stands for one of them, save that as its number" if IGNORE in values else ""
        yield (
            f"no label holds {_names(dataset, everywhere)}; the label values found are {_listed(values)}: "
            f"are the names in their order, from 0 on?{hint}"
        )
    unsaid = {index for index, name in enumerate(dataset.classes) if name.strip().lower() in NAMES_OF_VOID}
    if unsaid - everywhere:
        yield (
            f"the class {_names(dataset, unsaid)} is trained and scored as the others are; if it means void, say so in "
            "classes.yaml (void: [its name])"
        )
    for name, indices in missing.items():
        if indices - everywhere:
            scored = "it counts as 0 where a network predicts it, and not at all where none does"
            consequence = "it cannot be learnt" if name == "train" else scored
            yield f"no label of the {name} split holds {_names(dataset, indices - everywhere)}: {consequence}"
    for name, split in found:
        share = split.void_pixels / (split.void_pixels + split.labelled_pixels)
        if share > MOSTLY_VOID:
            yield f"{100 * share:.0f} % of the {name} labels are void, and count neither in training nor in scores"


def _odd_labels(samples: Sequence[Sample]) -> Iterable[str]:
    void = [sample for sample in samples if not any(sample.pixels)]
    if void:
        yield f"{len(void)} labels are void everywhere, such as {void[0].label_path}"
    seen: dict[int, tuple[tuple[int, int, int], Path]] = {}
    for sample in samples:
        for value, colour in sample.palette:
            before, path = seen.setdefault(value, (colour, sample.label_path))
            if before != colour:
                yield (
                    f"label value {value} has another colour in the palette of {path} (#{bytes(before).hex()}) than in "
                    f"that of {sample.label_path} (#{bytes(colour).hex()}): values count, not colours; did a program "
                    "choose the palettes?"
                )
                return


def _odd_images(dataset: Dataset, samples: Sequence[Sample]) -> Iterable[str]:
    turned = Counter(sample.orientation for sample in samples if sample.orientation != 1)
    if turned:
        kinds = ", ".join(f"{count} of orientation {value}" for value, count in sorted(turned.items()))
        yield (
            f"{sum(turned.values())} images are turned as their EXIF asks ({kinds}); labels are expected to fit what "
            "viewers show"
        )
    size, count = Counter(sample.size for sample in samples).most_common(1)[0]
    wanted = dataset.size
    ratio = (size[0] / size[1]) / (wanted[0] / wanted[1])
    if max(ratio, 1 / ratio) > STRETCHED:
        swapped = (size[0] - size[1]) * (wanted[0] - wanted[1]) < 0
        advice = (
            f"are height and width swapped? they come as HxW: {wanted[1]}x{wanted[0]}" if swapped else "is that meant?"
        )
        yield (
            f"{count} images are {size[0]}x{size[1]} (HxW), networks see them at {wanted[0]}x{wanted[1]}, stretched "
            f"by {max(ratio, 1 / ratio):.1f}; {advice}"
        )


def _copied(samples: dict[SplitName, list[Sample]]) -> Iterable[str]:
    for name, each in samples.items():
        images = {sample.image_digest for sample in each}
        if len(images) < len(each):
            yield f"{len(each) - len(images)} of the {len(each)} {name} images are copies of others"
        telling = [sample for sample in each if np.count_nonzero(sample.pixels) > 1]
        pairs = {(sample.image_digest, sample.label_digest) for sample in telling}
        copies = len(pairs) - len({label for _, label in pairs})
        if copies:
            yield f"{copies} {name} labels are copies of others, whose images differ: do they belong together?"


def _shared(samples: dict[SplitName, list[Sample]]) -> Iterable[str]:
    if not {"train", "validation"} <= samples.keys():
        return
    digests = {name: [sample.image_digest for sample in each] for name, each in samples.items()}
    again = len({*digests["train"]} & {*digests["validation"]})
    if again:
        yield f"{again} validation images are training images too: scores on them say little"


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
    """Results in order, some at a time, each time inside a `guard()`, and `count` is told of them; the first failure in
    that order is raised. Pillow decodes outside Python's lock.
    """
    results: list[Result] = []
    cores = usable_cores()
    with ThreadPoolExecutor(max_workers=cores) as pool:
        for start in range(0, len(items), FILES_AT_ONCE * cores):
            some = items[start : start + FILES_AT_ONCE * cores]
            with guard():
                try:
                    results += pool.map(work, some)
                except BaseException:  # Ctrl-C does not wait for the rest either, and none is at work past the guard
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise
            count(len(some))
    return results
