"""The kernel's facilities, one file each, no policy. Standard library only: the launcher preloads this room."""
