"""The plots of a run, as PNG and on request as SVG."""
