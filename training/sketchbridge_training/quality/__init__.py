"""How good the generators are: figures and pictures of what is served, on photos that were never trained on.

`sketchbridge quality` drives it; docs/quality.md says what the figures mean and what they don't.
"""
