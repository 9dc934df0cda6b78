"""The emulated device on which instructions of ours and of other runtimes are counted."""
