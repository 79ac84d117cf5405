"""How raw rows become requests, and requests go to a server and back."""
