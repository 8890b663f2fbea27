"""One thin frozen dataclass a strategy; the mathematics stands in the rooms it imports from."""
