"""Numbers that tell how a trained model works, of what its layers hand out on a sample of rows."""
