"""Published bits per dimension, as data: of the test split, and of the train split where the paper gives it. Models are
unconditional unless their names say otherwise.

A row belongs to one source of pixelcnn.data.sources, whose name includes the release: numbers on the ImageNet files of
van den Oord et al. 2016 and on those of Chrabaszcz et al. 2017 never share a table. No torch here.
"""

import math
from dataclasses import dataclass

CIFAR10 = "cifar10"
IMAGENET32, IMAGENET64 = "imagenet32_vdo2016", "imagenet64_vdo2016"
BINARY_MNIST = "binarized_mnist"
BOX32, BOX64 = "imagenet32_box2017", "imagenet64_box2017"


@dataclass(frozen=True)
class PublishedRow:
    """A published result on the test split of `source`, from one paper."""

    source: str
    model: str
    reference: str  # authors, year, arXiv identifier
    test: float  # bits/dim
    train: float | None = None  # bits/dim
    bound: bool = False  # printed with ≤: a variational upper bound
    parameters: int | None = None
    cost: str = ""  # of training, as the paper states it
    note: str = ""


def published(source: str) -> list[PublishedRow]:
    """The rows measured on the images of `source`; empty for a source without published results."""
    return [row for row in ROWS if row.source == source]


PIXELRNN = "van den Oord et al. 2016, arXiv:1601.06759"
GATED = "van den Oord et al. 2016, arXiv:1606.05328"
NICE = "Dinh et al. 2014, arXiv:1410.8516"
DIFFUSION = "Sohl-Dickstein et al. 2015, arXiv:1503.03585"
DARN = "Gregor et al. 2013, arXiv:1310.8499"
DRAW = "Gregor et al. 2015, arXiv:1502.04623"
DEEP_GMM = "van den Oord & Schrauwen 2014, NeurIPS"
CONV_DRAW = "Gregor et al. 2016, arXiv:1604.08772"
REAL_NVP = "Dinh et al. 2016, arXiv:1605.08803"
RIDE = "Theis & Bethge 2015, arXiv:1506.03478"
IAF = "Kingma et al. 2016, arXiv:1606.04934"
VLAE = "Chen et al. 2016, arXiv:1611.02731"
PIXELVAE = "Gulrajani et al. 2016, arXiv:1611.05013"
AUXILIARY = "Kolesnikov & Lampert 2016, arXiv:1612.08185"
PIXELCNN_PP = "Salimans et al. 2017, arXiv:1701.05517"
MULTISCALE = "Reed et al. 2017, arXiv:1703.03664"
PIXELSNAIL = "Chen et al. 2017, arXiv:1712.09763"
IMAGE_TRANSFORMER = "Parmar et al. 2018, arXiv:1802.05751"
GLOW = "Kingma & Dhariwal 2018, arXiv:1807.03039"
FLOW_PP = "Ho et al. 2019, arXiv:1902.00275"
SPARSE = "Child et al. 2019, arXiv:1904.10509"
ROUTING = "Roy et al. 2020, arXiv:2003.05997"
LMCONV = "Jain et al. 2020, arXiv:2006.12486"
NVAE = "Vahdat & Kautz 2020, arXiv:2007.03898"
VDVAE = "Child 2020, arXiv:2011.10650"
DENSEFLOW = "Grcić et al. 2021, arXiv:2106.04627"
VDM = "Kingma et al. 2021, arXiv:2107.00630"
PERCEIVER_AR = "Hawthorne et al. 2022, arXiv:2202.07765"
EFFICIENT_VDVAE = "Hazami et al. 2022, arXiv:2203.13751"
FLOW_MATCHING = "Lipman et al. 2022, arXiv:2210.02747"
MD4 = "Shi et al. 2024, arXiv:2406.04329"


def _binary_mnist(model: str, reference: str, nats: float, bound: bool = False, note: str = "") -> PublishedRow:
    """A result on binarised MNIST, of which papers report nats."""
    return PublishedRow(BINARY_MNIST, model, reference, nats / (28 * 28 * math.log(2)), bound=bound, note=note)


ROWS = (
    PublishedRow(CIFAR10, "Uniform", PIXELRNN, 8.00, parameters=0),
    PublishedRow(
        CIFAR10,
        "Deep Diffusion",
        DIFFUSION,
        4.20,
        bound=True,
        note="as PixelRNN and Gated PixelCNN print it; PixelCNN++ and later tables print 5.40",
    ),
    PublishedRow(CIFAR10, "Multivariate Gaussian", PIXELRNN, 4.70, parameters=4_700_000),
    PublishedRow(CIFAR10, "NICE", NICE, 4.48),
    PublishedRow(CIFAR10, "DRAW", DRAW, 4.13, bound=True),
    PublishedRow(CIFAR10, "Deep GMMs", DEEP_GMM, 4.00),
    PublishedRow(CIFAR10, "Conv DRAW", CONV_DRAW, 3.58, 3.57, bound=True, note="3.59 in the Real NVP paper"),
    PublishedRow(CIFAR10, "Real NVP", REAL_NVP, 3.49),
    PublishedRow(CIFAR10, "RIDE (spatial LSTM)", RIDE, 3.47),
    PublishedRow(CIFAR10, "Glow", GLOW, 3.35),
    PublishedRow(CIFAR10, "PixelCNN", PIXELRNN, 3.14, 3.08),
    PublishedRow(CIFAR10, "ResNet VAE with IAF", IAF, 3.11, bound=True),
    PublishedRow(CIFAR10, "Flow++", FLOW_PP, 3.08, bound=True, parameters=31_000_000),
    PublishedRow(CIFAR10, "Row LSTM (PixelRNN)", PIXELRNN, 3.07, 3.00),
    PublishedRow(CIFAR10, "Gated PixelCNN", GATED, 3.03, 2.90),
    PublishedRow(CIFAR10, "Diagonal BiLSTM (PixelRNN)", PIXELRNN, 3.00, 2.93),
    PublishedRow(CIFAR10, "PixelCNN with auxiliary variables", AUXILIARY, 2.98),
    PublishedRow(CIFAR10, "VLAE", VLAE, 2.95, bound=True),
    PublishedRow(CIFAR10, "PixelCNN++, class-conditional", PIXELCNN_PP, 2.94),
    PublishedRow(CIFAR10, "PixelCNN++", PIXELCNN_PP, 2.92, parameters=53_000_000, cost="about 5 d, 8 Maxwell TITAN X"),
    PublishedRow(CIFAR10, "NVAE", NVAE, 2.91, bound=True, parameters=131_000_000),
    PublishedRow(CIFAR10, "Image Transformer", IMAGE_TRANSFORMER, 2.90),
    PublishedRow(CIFAR10, "LMConv, 8 orders", LMCONV, 2.89),
    PublishedRow(
        CIFAR10, "VDVAE", VDVAE, 2.87, bound=True, parameters=39_000_000, cost="a little less than a week, 2 V100"
    ),
    PublishedRow(CIFAR10, "PixelSNAIL", PIXELSNAIL, 2.85, parameters=46_000_000),
    PublishedRow(CIFAR10, "Sparse Transformer", SPARSE, 2.80, parameters=59_000_000, cost="120 epochs"),
    PublishedRow(CIFAR10, "MD4", MD4, 2.75, bound=True, parameters=28_000_000),
    PublishedRow(CIFAR10, "VDM", VDM, 2.65, bound=True),
    PublishedRow(IMAGENET32, "Conv DRAW", CONV_DRAW, 4.40, 4.35, bound=True),
    PublishedRow(IMAGENET32, "Real NVP", REAL_NVP, 4.28),
    PublishedRow(IMAGENET32, "Glow", GLOW, 4.09),
    PublishedRow(IMAGENET32, "Parallel Multiscale", MULTISCALE, 3.95),
    PublishedRow(IMAGENET32, "NVAE", NVAE, 3.92, bound=True, parameters=268_000_000),
    PublishedRow(IMAGENET32, "Flow++", FLOW_PP, 3.86, bound=True, parameters=169_000_000),
    PublishedRow(IMAGENET32, "Row LSTM (PixelRNN)", PIXELRNN, 3.86, 3.83),
    PublishedRow(IMAGENET32, "Gated PixelCNN", GATED, 3.83, 3.77, cost="60 h, 32 GPUs"),
    PublishedRow(IMAGENET32, "PixelSNAIL", PIXELSNAIL, 3.80),
    PublishedRow(IMAGENET32, "Image Transformer", IMAGE_TRANSFORMER, 3.77),
    PublishedRow(IMAGENET32, "VDM", VDM, 3.72, bound=True),
    PublishedRow(IMAGENET64, "Conv DRAW", CONV_DRAW, 4.10, 4.04, bound=True),
    PublishedRow(IMAGENET64, "Real NVP", REAL_NVP, 3.98, note="4.01 in other tables"),
    PublishedRow(IMAGENET64, "Glow", GLOW, 3.81),
    PublishedRow(IMAGENET64, "Parallel Multiscale", MULTISCALE, 3.70),
    PublishedRow(IMAGENET64, "Flow++", FLOW_PP, 3.69, bound=True),
    PublishedRow(IMAGENET64, "PixelVAE", PIXELVAE, 3.66, 3.59, bound=True),
    PublishedRow(IMAGENET64, "Row LSTM (PixelRNN)", PIXELRNN, 3.63, 3.57),
    PublishedRow(IMAGENET64, "Gated PixelCNN", GATED, 3.57, 3.48),
    PublishedRow(IMAGENET64, "PixelSNAIL", PIXELSNAIL, 3.52),
    PublishedRow(IMAGENET64, "Sparse Transformer", SPARSE, 3.44, parameters=152_000_000, cost="7 d, 64 V100"),
    PublishedRow(IMAGENET64, "Routing Transformer", ROUTING, 3.43),
    PublishedRow(IMAGENET64, "Perceiver AR", PERCEIVER_AR, 3.40, parameters=770_000_000),
    PublishedRow(IMAGENET64, "MD4", MD4, 3.40, bound=True, parameters=198_000_000),
    PublishedRow(IMAGENET64, "VDM", VDM, 3.40, bound=True),
    PublishedRow(BOX32, "Efficient-VDVAE", EFFICIENT_VDVAE, 3.58, bound=True),
    PublishedRow(BOX32, "Flow Matching", FLOW_MATCHING, 3.53, note="of a continuous density, dequantised"),
    PublishedRow(BOX64, "DenseFlow", DENSEFLOW, 3.35, bound=True, parameters=130_000_000),
    PublishedRow(BOX64, "Flow Matching", FLOW_MATCHING, 3.31, note="of a continuous density, dequantised"),
    PublishedRow(BOX64, "Efficient-VDVAE", EFFICIENT_VDVAE, 3.30, bound=True),
    _binary_mnist("DARN", DARN, 84.13, note="an estimate, as the PixelRNN paper prints it"),
    _binary_mnist("PixelCNN", PIXELRNN, 81.30),
    _binary_mnist("DRAW", DRAW, 80.97, bound=True),
    _binary_mnist("Diagonal BiLSTM (PixelRNN), 7 layers", PIXELRNN, 79.20),
)
