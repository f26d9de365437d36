"""Executing, normalising and rendering the book; needs the extra `book` and a checkout."""
