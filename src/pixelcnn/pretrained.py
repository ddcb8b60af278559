"""The models that come with pixelcnn: wherever a model's folder is wanted, their names will do.

They lie in the package pixelcnn_pretrained, each as `pixelcnn models pack` wrote it (pixelcnn.tracking.model_package).
"""

from importlib.util import find_spec
from pathlib import Path

CONFIG = "config.json"  # what makes a folder a model's (pixelcnn.checkpoint, which would import torch here)


def folders() -> dict[str, Path]:
    """The folders of the models that are there, by name; none where the code of pixelcnn stands alone."""
    spec = find_spec("pixelcnn_pretrained")
    if spec is None or spec.origin is None:
        return {}
    return {path.parent.name: path.parent for path in sorted(Path(spec.origin).parent.glob(f"*/{CONFIG}"))}


def find(source: str | Path) -> Path:
    """The folder that a name or a path means; a Path is never a name.

    Raises ValueError where there is neither, and for a name that is a model's folder here as well.
    """
    path, shipped = Path(source), folders()
    if source in shipped:
        if (path / CONFIG).exists():
            raise ValueError(f"{source}: comes with pixelcnn, and is a folder here too; ./{source} means the folder")
        return shipped[str(source)]
    if not path.exists():
        raise ValueError(
            f"{source}: neither a folder here nor what comes with pixelcnn ({', '.join(shipped) or 'nothing'}); a "
            "model of the registry is models:/NAME@ALIAS or models:/NAME/VERSION"
        )
    return path


def unmistakable(folder: Path) -> str:
    """How `find` is to be asked for this folder."""
    return f"./{folder}" if str(folder) in folders() else str(folder)
