"""Keep records, progress and provenance of the stages."""
