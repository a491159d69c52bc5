"""What a generator can be turned into: one file an artefact."""
