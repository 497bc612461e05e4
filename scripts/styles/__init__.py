"""The programs that draw the style pictures: one module per picture, each with `draw() -> Picture`."""
