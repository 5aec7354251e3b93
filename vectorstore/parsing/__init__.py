"""Files as documents: what a file is, and its text.

`documents.parse` is the entry. It decides what a file is by its contents (`kinds`), decodes plain text itself and hands
the rest to a limited child process (`process`, which runs `child`), where one of `readers` does the work under
`confinement`. What the child imports knows neither Django nor our settings.
"""
