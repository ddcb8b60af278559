"""ImageNet 64x64 of "Pixel Recurrent Neural Networks" (van den Oord et al. 2016): numbered PNG files in tars."""

from pixelcnn.data.sources._imagenet import vdo2016

SOURCE = vdo2016(
    64,
    train=("e2a2c1947a748d0d256e98e6d82800d855441dc9e4de2e71a773f1324c4524d7", 12_112_588_800),
    test=("eeac03ec4f585baf871d2b4cb9c974bfe345e74878a74e5820fe6eb1041629cd", 477_255_680),
)
