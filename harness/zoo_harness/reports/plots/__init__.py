"""Draw the plots of a run as PNG files, and as SVG files if the user asks for SVG."""
