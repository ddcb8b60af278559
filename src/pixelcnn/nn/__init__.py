"""Networks: integers (B, C, H, W) and an optional condition in, outputs of a likelihood out."""
