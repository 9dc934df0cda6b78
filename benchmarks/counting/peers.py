"""The runtimes that our module is compared with, by name."""

from __future__ import annotations

from counting import executorch_peer, litert_peer, mnn_peer, ncnn_peer, onnxruntime_peer

PEERS = {
    "ncnn": ncnn_peer.PEER,
    "mnn": mnn_peer.PEER,
    "litert": litert_peer.PEER,
    "executorch": executorch_peer.PEER,
    "onnxruntime": onnxruntime_peer.PEER,
}
