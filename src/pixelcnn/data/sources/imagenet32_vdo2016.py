"""ImageNet 32x32 of "Pixel Recurrent Neural Networks" (van den Oord et al. 2016): numbered PNG files in tars."""

from pixelcnn.data.sources._imagenet import vdo2016

SOURCE = vdo2016(
    32,
    train=("244a323d48f8d72f65ad8b54658c01fed68d2d7bdc77ccb43da58c11e94224e5", 4_113_018_880),
    test=("862e559462b24cf736212a19f6b0d47b55c2dc8ebdaa95ccecfe71260124c8f7", 161_474_560),
)
