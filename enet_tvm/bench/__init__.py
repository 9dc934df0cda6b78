"""Comparing runners on the same inputs: are the results the same, and how fast is each."""
