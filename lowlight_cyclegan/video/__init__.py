"""Videos: decoded, enhanced frame by frame with brightness smoothed over time, and joined with their sound."""
