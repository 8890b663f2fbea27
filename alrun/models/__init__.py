"""Networks, one family a file; each family is a frozen dataclass that builds a `Network`."""
