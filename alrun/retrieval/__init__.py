"""Finding pool rows by their features: projections, and nearest neighbors among millions."""
