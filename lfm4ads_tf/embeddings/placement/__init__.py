"""Where tables and their slots lie, and who handles them there."""
