"""Encode records as token ids and collate them into batches."""
