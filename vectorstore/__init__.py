"""Documents → chunks → vectors → search."""
