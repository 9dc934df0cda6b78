"""The machine that is measured on, and its state: description, clocks, temperatures and throttling."""
