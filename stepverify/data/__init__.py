"""Records → ids → batches."""
