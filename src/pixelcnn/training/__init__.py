"""Maximum likelihood training: state, loop, optimizers, several processes."""
