"""Numbers that a refactoring must not change, and the command that compares a checkout with them."""
