"""The ROS 2 node, with stand-ins for rclpy and sensor_msgs: what it publishes is what the segmenter says."""

import importlib.util
import queue
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from enet_tvm.runtime import Segmenter
from enet_tvm.runtime.overlay import overlay

NODE = Path(__file__).parents[2] / "docs" / "ros2_node.py"


class Message:
    """sensor_msgs.msg.Image."""


class Node:
    """What the node uses of rclpy.node.Node."""

    def __init__(self, artifact):
        self.artifact = artifact
        self.published, self.errors, self.callback = queue.SimpleQueue(), [], None

    def declare_parameter(self, name, default):
        return types.SimpleNamespace(value=self.artifact if name == "artifact" else default)

    def create_publisher(self, kind, topic, profile):
        return types.SimpleNamespace(publish=lambda message: self.published.put((topic, message)))

    def create_subscription(self, kind, topic, callback, profile):
        assert (kind, topic) == (Message, "image")
        self.callback = callback

    def get_logger(self):
        return types.SimpleNamespace(error=self.errors.append)

    def destroy_subscription(self, subscription):
        self.callback = None

    def destroy_node(self):
        pass


def message_of(pixels, encoding, header, padding=5):
    message = Message()
    height, width, _ = pixels.shape
    rows = np.pad((pixels if encoding == "rgb8" else pixels[..., ::-1]).reshape(height, -1), ((0, 0), (0, padding)))
    message.header, message.encoding, message.height, message.width = header, encoding, height, width
    message.step, message.data = rows.shape[1], rows.tobytes()
    return message


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_it_publishes_what_the_segmenter_says(monkeypatch, tiny_artifact, encoding):
    node = Node(str(tiny_artifact.directory))
    pictures = np.random.default_rng(0).integers(0, 256, (3, 30, 50, 3), np.uint8)
    said = []

    def spin(_):
        node.callback(message_of(pictures[0], "mono16", "refused"))
        short = message_of(pictures[0], encoding, "refused")
        short.data = short.data[:-1]
        node.callback(short)
        for number, pixels in enumerate(pictures):
            node.callback(message_of(pixels, encoding, f"header {number}"))
            said.append([node.published.get(timeout=30) for _ in range(2)])
        raise KeyboardInterrupt

    class ExternalShutdownException(Exception):  # noqa: N818, rclpy's name
        pass

    modules = {
        "rclpy": {"init": lambda: None, "create_node": lambda _: node, "spin": spin, "try_shutdown": lambda: None},
        "rclpy.executors": {"ExternalShutdownException": ExternalShutdownException},
        "rclpy.qos": {"qos_profile_sensor_data": "sensor"},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": Message},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("ros2_node", NODE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main()

    assert node.callback is None
    unknown, short = node.errors
    assert "not mono16" in unknown
    assert "do not fit its 50x30 pixels" in short
    with Segmenter.load(tiny_artifact.directory) as segmenter:
        for number, (pixels, results) in enumerate(zip(pictures, said, strict=True)):
            labels = segmenter.segment(pixels)
            shown = np.asarray(overlay(pixels, labels, segmenter.manifest.palette, 0.5))
            for (topic, message), wanted, kind in zip(results, (labels, shown), ("mono8", "rgb8"), strict=True):
                assert topic == ("labels" if kind == "mono8" else "overlay")
                assert (message.header, message.encoding) == (f"header {number}", kind)
                assert (message.height, message.width, message.step) == (30, 50, wanted[0].size)
                assert message.data == wanted.tobytes()
