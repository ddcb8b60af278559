"""Whether a prepared data set holds exactly the published images, so that likelihoods on it are comparable."""

from collections.abc import Mapping
from typing import Any

from pixelcnn.data.dataset import SplitInfo, SplitName, join_fingerprints
from pixelcnn.data.sources import PublishedSplit, Source


def check_counts(source: Source, splits: Mapping[SplitName, SplitInfo]) -> None:
    """Raise ValueError unless the archives held as many images as the publisher states."""
    for published, expected in source.num_images.items():
        if (found := _published_count(splits, published)) != expected:
            raise ValueError(
                f"{source.title}: the {published} archives hold {found:,} images, the publisher's {expected:,}; "
                "`verify: any` accepts a sample, and the report marks the data set"
            )


def is_comparable(
    source: Source, splits: Mapping[SplitName, SplitInfo], manifest: Mapping[str, Any]
) -> tuple[bool, str]:
    """Whether likelihoods on this test split are comparable with published ones, and the reason.

    They are if the images have the published fingerprint, or if all archives of the `manifest` have the publisher's
    checksum.
    """
    expected, found = source.num_images["test"], splits["test"].num_images
    if source.fingerprints.get("test") == splits["test"].fingerprint:
        same = join_fingerprints(splits["train"].fingerprint, splits["validation"].fingerprint)
        others = "so are" if same == source.fingerprints.get("train") else "not all of"
        return True, f"the {found:,} test images are the published ones, {others} the training images"
    if manifest and all(entry["verified"] == "publisher" for entry in manifest.values()):
        return True, "every archive has the publisher's checksum"
    if found != expected:
        kind = "a sample: " if found < expected else ""
        return False, f"{kind}{found:,} test images, the publisher's test split has {expected:,}"
    if "test" in source.fingerprints:
        return False, f"{found:,} test images as published, but not the same ones"
    if not manifest:
        return False, f"{found:,} test images as stated, but no fingerprint of them is known"
    unknown = ", ".join(sorted(file for file, entry in manifest.items() if entry["verified"] != "publisher"))
    return False, f"{found:,} test images as published, but {unknown} could not be verified by a published checksum"


def _published_count(splits: Mapping[SplitName, SplitInfo], published: PublishedSplit) -> int:
    """How many images the archives held for a published split; our validation images are of its training split."""
    ours: tuple[SplitName, ...] = ("train", "validation") if published == "train" else ("test",)
    return sum(splits[name].num_images for name in ours)
