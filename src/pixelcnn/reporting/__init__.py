"""NLL tables beside the published ones, model cards and the report page."""
