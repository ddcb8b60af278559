"""One folder per system, named as `model.name` in params.yaml: its config section, network and stepper."""
