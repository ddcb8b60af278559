"""The models that come with pixelcnn: wherever a model's folder is wanted, their names will do.

They lie in the package pixelcnn_pretrained, each as `pixelcnn models pack` wrote it (pixelcnn.candidate).
"""

from importlib.util import find_spec
from pathlib import Path


def folders() -> dict[str, Path]:
    """The folders of the models that are there, by name; none where the code of pixelcnn stands alone."""
    spec = find_spec("pixelcnn_pretrained")
    if spec is None or spec.origin is None:
        return {}
    return {path.parent.name: path.parent for path in sorted(Path(spec.origin).parent.glob("*/config.json"))}
