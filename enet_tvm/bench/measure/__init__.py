"""What is measured of a runner: latency, footprint, energy, and the machine's limit to hold them against."""
