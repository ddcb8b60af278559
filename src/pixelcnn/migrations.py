"""The format of config.json in a model folder, and how older formats are read: in memory, files are never rewritten.

A change of what config.json holds gets a new FORMAT and one function below, from the format before to the new one;
`python -m tests.model_folders` then writes model folders of the new format beside those of all older ones.
"""

from collections.abc import Callable
from typing import Any

from pixelcnn.config import RENAMED, quoted

FORMAT = 2
Content = dict[str, Any]


def to_2(content: Content) -> Content:
    """Format 1 had no likelihood section: the network's name implied it. `pixelcnn++` was no name of a folder."""
    if not isinstance(content["model"], dict):
        return content  # which the schema refuses
    model = dict(content["model"])
    likelihood: Content = {"name": "categorical"}
    if "num_mixtures" in model:
        likelihood = {"name": "logistic_mixture", "num_mixtures": model.pop("num_mixtures")}
    if isinstance(model.get("name"), str):
        model["name"] = RENAMED.get(model["name"], model["name"])
    return content | {"model": model, "likelihood": likelihood}


MIGRATIONS: dict[int, Callable[[Content], Content]] = {1: to_2}  # by the format that they read


def migrated(content: Content, where: str) -> Content:
    """The content of a config.json of any format, as FORMAT has it. ValueError for a format that is newer or none."""
    number = content.get("format", 1)  # the first release wrote none
    if type(number) is not int or not 1 <= number <= FORMAT:
        raise ValueError(
            f"{where}: format: {quoted(number)} is not one of 1 ... {FORMAT}; a later pixelcnn may read it"
        )
    for older in range(number, FORMAT):
        content = MIGRATIONS[older](content)
    return content | {"format": FORMAT}
