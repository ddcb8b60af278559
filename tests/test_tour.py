"""examples/tour.ipynb runs, and its stored outputs are those of this code: the same words, about the same numbers."""

import ast
import base64
import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

TOUR = Path(__file__).parent.parent / "examples" / "tour.ipynb"
NUMBER = re.compile(r"\d+\.\d+")  # measured ones; whole numbers are shapes and steps
TOLERANCE = 0.1  # of them: another processor rounds differently, so that a sample may be another one


def run(source: str, names: dict[str, Any]) -> tuple[str, Any]:
    """What a cell prints, and the value of its last expression, as Jupyter has them."""
    tree, value = ast.parse(source), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, str(TOUR), "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), str(TOUR), "eval"), names)
    return printed.getvalue(), value


def test_the_tour_says_and_shows_what_its_notebook_has() -> None:
    names: dict[str, Any] = {}
    for cell in json.loads(TOUR.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        printed, value = run("".join(cell["source"]), names)
        stored = {output["output_type"]: output for output in cell["outputs"]}
        assert set(stored) <= {"stream", "execute_result"}
        text = "".join(stored["stream"]["text"]) if "stream" in stored else ""
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", text)
        assert [*map(float, NUMBER.findall(printed))] == pytest.approx(
            [*map(float, NUMBER.findall(text))], rel=TOLERANCE
        )
        shown = stored["execute_result"]["data"] if "execute_result" in stored else {}
        if isinstance(value, Image.Image):
            with Image.open(io.BytesIO(base64.b64decode(shown["image/png"]))) as picture:
                assert picture.size == value.size
        elif value is not None:
            assert "".join(shown["text/plain"]) == repr(value)
