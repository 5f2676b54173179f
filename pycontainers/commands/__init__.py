"""The verbs: one declaration each, for the magic, the program, help, completion and the reference page."""
