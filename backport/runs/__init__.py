"""Runs of the pipeline: what they are of, what they gave, what is told of them."""
