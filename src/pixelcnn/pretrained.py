"""The bundled models, which may be given by name wherever a model folder is expected.

They lie in the package pixelcnn_pretrained, each as `pixelcnn models pack` wrote it (pixelcnn.tracking.model_package).
"""

from importlib.util import find_spec
from pathlib import Path

from pixelcnn.spelling import hint

CONFIG = "config.json"  # every model folder has it; not imported from pixelcnn.checkpoint, which imports torch


def folders() -> dict[str, Path]:
    """The model folders in pixelcnn_pretrained, by name; none where that package is not installed."""
    spec = find_spec("pixelcnn_pretrained")
    if spec is None or spec.origin is None:
        return {}
    return {path.parent.name: path.parent for path in sorted(Path(spec.origin).parent.glob(f"*/{CONFIG}"))}


def find(source: str | Path) -> Path:
    """The model folder that a name or a path means; a Path object is never a name.

    Raises ValueError where there is neither, and for a name that is also a model folder in the working directory.
    """
    path, shipped = Path(source), folders()
    if source in shipped:
        if (path / CONFIG).exists():
            raise ValueError(f"{source}: both a bundled model and a folder here; write ./{source} for the folder")
        return shipped[str(source)]
    if not path.exists():
        here = [str(config.parent) for config in Path("models").glob(f"*/{CONFIG}")]
        remedy = (
            hint(str(source), [*shipped, *here]) or "; a registered model is models:/NAME@ALIAS or models:/NAME/VERSION"
        )
        raise ValueError(f"{source}: neither a folder nor a bundled model ({', '.join(shipped) or 'none'}){remedy}")
    if not path.is_dir():
        raise ValueError(f"{source}: is a file; a model is a folder, with model.safetensors and {CONFIG}")
    return path


def unambiguous(folder: Path) -> str:
    """The text by which `find` finds this folder, also where a bundled model has its name."""
    return f"./{folder}" if str(folder) in folders() else str(folder)
