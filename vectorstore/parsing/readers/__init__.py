"""One module for each form that the child process reads, with a `read(data, *, declared, most_chars) -> Parsed`.

`declared` is the charset that came with the document, or nothing. They raise Unparsable for what they know to be wrong;
anything else that a library raises is taken for a damaged document. No Django here, and no settings.
"""
