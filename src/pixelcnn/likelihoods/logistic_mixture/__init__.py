"""A mixture of discretised logistics (PixelCNN++)."""
