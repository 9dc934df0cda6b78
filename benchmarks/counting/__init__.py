"""Instructions that a program executes on an emulated ARM processor, and what a scheduling model says of its loops."""
