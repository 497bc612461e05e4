"""What ships inside the package: style pictures and the compressed loss network (see NOTICE)."""
