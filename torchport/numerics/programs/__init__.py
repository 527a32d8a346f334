"""What differs between two runs as programs: sources, graphs, weights, inputs, and what they were recorded under."""
