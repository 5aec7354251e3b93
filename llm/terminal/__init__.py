"""What `manage.py llm` does, a module for each group of its subcommands."""
