"""ImageNet 32x32 of Chrabaszcz et al. 2017: box-filtered, pickles or npz files in zips.

Where both kinds are offered the npz files come first: they alone have published checksums, and hold no pickles.
"""

from pixelcnn.data.sources._imagenet import box, box2017

SOURCE = box2017(
    32,
    train=(
        (
            box(
                "Imagenet32_train_npz.zip",
                "94226337ecc1b0309d9fcd0167127aaadc931587035fbcb53925235edbaec4fc",
                3_580_435_279,
            ),
        ),
        (box("Imagenet32_train.zip", num_bytes=3_590_350_354),),
    ),
    test=(
        (
            box(
                "Imagenet32_val_npz.zip",
                "013990e6dec1237dcd1f9beadbab81ead6604cc119af5cacbfb59ae28148377a",
                139_697_668,
            ),
        ),
        (box("Imagenet32_val.zip"),),
    ),
)
