"""Suggestions for misspelt names."""

import difflib
from collections.abc import Iterable


def hint(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: "; did you mean 'sample'?" if a known one is close, else ""."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
