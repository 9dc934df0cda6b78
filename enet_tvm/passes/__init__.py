"""Relax passes, one a file; `enet_tvm.pipeline` says in which order they run."""
