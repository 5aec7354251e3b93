"""Pages, and later the widget and the SDK; the built files are served by Django."""
