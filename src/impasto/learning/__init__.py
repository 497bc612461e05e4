"""Training wing: a style picture and photos in, a style file out."""
