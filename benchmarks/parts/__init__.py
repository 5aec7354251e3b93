"""The parts, each a function from the stage to rows of the table."""
