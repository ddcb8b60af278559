"""PixelCNN auto-encoder (van den Oord et al. 2016, arXiv:1606.05328, section 2.4)."""
