"""Write the folders of today's format that are missing: `python -m tests.model_folders`.

Those of the format before, migrated, and a fresh model for each architecture that had none. What is there stays.
"""

import json

import torch

from pixelcnn import architectures, checkpoint
from pixelcnn.migrations import FORMAT
from tests.test_architectures import model_of
from tests.test_model_folders import CONDITIONS, HERE, IMAGES

before, now = HERE / f"format{FORMAT - 1}", HERE / f"format{FORMAT}"
models = {path.parent.name: checkpoint.load(path.parent) for path in sorted(before.glob("*/config.json"))}
covered = {model.config.name for model in models.values()}
models |= {name: model_of(name, 3) for name in architectures.NAMES if name not in covered}

answers = now / "expected.json"
expected = json.loads(answers.read_text()) if answers.exists() else {}
for name in sorted(models.keys() - expected.keys()):
    model = models[name]
    model.network.eval()
    checkpoint.save(now / name, model, model.network.state_dict())
    with torch.inference_mode():
        expected[name] = model.nll(IMAGES, CONDITIONS.get(model.given)).tolist()
    print(f"{now / name}: written")
answers.write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
