"""Commands: they unpack options, pass them on, and turn errors into exit statuses."""
