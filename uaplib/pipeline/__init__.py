"""Executing, normalising and rendering the book: what `uaplib book` does; needs the extra `book` and a checkout."""
