"""Comparing runners on the same inputs: are the results the same, and how fast is each.

The subpackages, in the order of the data: `machine` (the hardware and its state), `runners` (the network in each runtime),
`measure` (latency, memory, energy), `report` (tables, pages, JSON). `plan` turns the user's options into cases, and
`comparison` takes each of them through all four.
"""
