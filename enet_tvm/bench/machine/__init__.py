"""What a machine is, and the state it is in: its description, clocks, temperatures and throttling."""
