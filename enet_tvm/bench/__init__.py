"""Comparing runners on the same inputs: are the results the same, and how fast is each.

The rooms, in the order that data takes: `machine` (what is computed on), `runners` (what computes), `measure` (how fast, and at
what cost), `report` (how it is told). `comparison` leads through them, `plan` says what is to be run.
"""
