"""The plugins that come with blockzoo; zoo finds them through the entry-point group ``zoo``, like all other plugins."""
