"""64-bit ARM processors without a board: which instructions a program executes, and what a scheduling model says of them."""
