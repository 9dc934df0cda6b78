"""What a comparison found, as figures, tables, sentences and pages, and what changed between two of them."""
