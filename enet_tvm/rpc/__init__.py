"""Devices over RPC: a tracker that knows them, a server that runs on each, and sessions that always come to an end.

The wire protocol is TVM's own, so that its client, server and tracker each work with the other two of these.
"""
