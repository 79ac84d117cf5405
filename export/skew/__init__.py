"""What is served against what was evaluated: replay of logged rows, and drift of features."""
