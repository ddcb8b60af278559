"""Write the folders of today's format from those of the format before: `python -m tests.model_folders`."""

import json
import shutil

import torch

from pixelcnn import checkpoint
from pixelcnn.migrations import FORMAT
from tests.test_model_folders import CONDITIONS, HERE, IMAGES

before, now, expected = HERE / f"format{FORMAT - 1}", HERE / f"format{FORMAT}", {}
shutil.rmtree(now, ignore_errors=True)
for folder in sorted(path.parent for path in before.glob("*/config.json")):
    model = checkpoint.load(folder)
    checkpoint.save(now / folder.name, model, model.network.state_dict())
    with torch.inference_mode():
        expected[folder.name] = model.nll(IMAGES, CONDITIONS.get(model.given)).tolist()
(now / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
print(f"{now}: {len(expected)} folders")
