"""Where models and data come from: the user's own functions, libraries, files."""
