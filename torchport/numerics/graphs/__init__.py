"""FX graphs in a run folder, and their evaluation in float64."""
