"""The notebook: magics, completion, display, progress, plots, widgets."""
