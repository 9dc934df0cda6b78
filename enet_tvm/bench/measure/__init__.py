"""Measurements of a runner: latency, footprint and energy, beside the machine's roofline."""
