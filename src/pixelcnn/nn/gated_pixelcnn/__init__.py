"""The Gated PixelCNN, which is a system of its own and the decoder of the PixelCNN auto-encoder."""
