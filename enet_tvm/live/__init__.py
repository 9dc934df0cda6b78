"""A page in the browser that shows what the network sees, live. Needs the extra `live`."""
