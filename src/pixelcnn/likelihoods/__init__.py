"""Likelihoods of integer images, a file each, named as `likelihood.name` in params.yaml."""
