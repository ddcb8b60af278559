"""CIFAR-100 (Krizhevsky 2009), the Python version, with its 100 fine classes. The checksum is torchvision's."""

from pixelcnn.data.archives import read_cifar100
from pixelcnn.data.sources import Archive, Source

ARCHIVE = Archive(
    "cifar-100-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
)
CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
"""

SOURCE = Source(
    title="CIFAR-100",
    read=read_cifar100,
    archives={"train": ((ARCHIVE,),), "test": ((ARCHIVE,),)},
    shape=(3, 32, 32),
    levels=256,
    classes=tuple(CLASSES.split()),
    num_images={"train": 50_000, "test": 10_000},
    licence="none stated by the publisher, who asks to cite the report",
    citation="Krizhevsky: Learning Multiple Layers of Features from Tiny Images. Technical report, 2009",
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
)
