"""The plugins that come with blockzoo, which zoo finds through the entry-point group ``zoo`` like any other plugin."""
