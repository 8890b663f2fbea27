"""Networks, one family a file; each exposes the input of its last linear layer."""
