"""Saved models of every format that there has been, as small as networks can be, and what they said of some images.

    formatN/NAME/model.safetensors, config.json    written by the release whose format that was, never again
    formatN/expected.json                          {NAME: nats of `images`, given `condition`}

A new format gets a new folder by `python -m tests.model_folders`; the older ones stay as they are.
"""
