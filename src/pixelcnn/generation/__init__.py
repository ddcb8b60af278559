"""What a trained model makes: samples, completions, interpolations, compressed archives, and grids of them."""
