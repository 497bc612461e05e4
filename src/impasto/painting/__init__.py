"""Painting wing: a style file and a photo in, a painted photo out."""
