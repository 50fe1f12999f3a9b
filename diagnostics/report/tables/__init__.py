"""How tables are shown and written: views, files of each format, LaTeX, cells of the page."""
