"""The notebook's Python in containers: cells, functions, and how their values travel."""
