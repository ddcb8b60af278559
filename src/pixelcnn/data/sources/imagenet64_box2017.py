"""ImageNet 64x64 of Chrabaszcz et al. 2017: box-filtered, pickles or npz files in zips.

Where both kinds are offered the npz files come first: they alone have published checksums, and hold no pickles.
"""

from pixelcnn.data.sources._imagenet import box, box2017

SOURCE = box2017(
    64,
    train=(
        (
            box(
                "Imagenet64_train_part1_npz.zip",
                "9422dc1dc5d092e9814a70a1cb7fc74880d2db5d88a0cb8a34ee363b12bde3f1",
                6_783_426_789,
            ),
            box(
                "Imagenet64_train_part2_npz.zip",
                "9fafc115afb7e6c301e66dc16b2d737152b427bd5dab26e1293487a6819c7f30",
                6_780_506_068,
            ),
        ),
        (box("Imagenet64_train_part1.zip"), box("Imagenet64_train_part2.zip")),
        (box("Imagenet64_train.zip"),),  # both parts in one file, as people repack them
    ),
    test=(
        (
            box(
                "Imagenet64_val_npz.zip",
                "e1e75133158a1924135a9c6f97a80d2d237b158945e0b34074e58e6c8430eeb8",
                529_522_927,
            ),
        ),
        (box("Imagenet64_val.zip"),),
    ),
)
