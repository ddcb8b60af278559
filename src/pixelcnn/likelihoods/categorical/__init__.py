"""A softmax over the levels of each sub-pixel."""
