"""A convolutional auto-encoder under a squared error, with which the PixelCNN auto-encoder is compared."""
