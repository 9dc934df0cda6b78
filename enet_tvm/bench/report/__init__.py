"""Results of a comparison, as figures, tables, sentences and pages, and what changed between two of them."""
