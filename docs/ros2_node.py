"""A ROS 2 node: pictures of a camera in, labels and overlays out.

    python ros2_node.py --ros-args -p artifact:=street -r image:=/camera/image_raw

It subscribes to ``image`` (sensor_msgs/Image, rgb8 or bgr8) and publishes ``labels`` (mono8, class numbers) and ``overlay``
(rgb8) with the header of the picture that they are of. A picture that comes too fast is dropped, the oldest first.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image as Picture

from enet_tvm.errors import UserError
from enet_tvm.runtime import Segmenter
from enet_tvm.runtime.overlay import overlay


def to_picture(message: Any) -> Picture.Image:
    """Return a message's picture, with its header beside it; its rows may be padded."""
    if message.encoding not in ("rgb8", "bgr8"):
        raise UserError(f"pictures are rgb8 or bgr8, not {message.encoding}; convert them, as image_proc does")
    if message.step < 3 * message.width or len(message.data) != message.height * message.step:
        raise UserError(f"a picture's data do not fit its {message.width}x{message.height} pixels; look at what publishes it")
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    pixels = rows[:, : 3 * message.width].reshape(message.height, message.width, 3)
    picture = Picture.fromarray(np.ascontiguousarray(pixels if message.encoding == "rgb8" else pixels[:, :, ::-1]))
    picture.info["header"] = message.header
    return picture


def to_message(pixels: np.ndarray, encoding: str, header: Any) -> Any:
    """Return a message of H x W (mono8) or H x W x 3 (rgb8) uint8 pixels."""
    from sensor_msgs.msg import Image

    message = Image()
    message.header, message.encoding, message.is_bigendian = header, encoding, 0
    message.height, message.width = pixels.shape[:2]
    message.step = pixels[0].size
    message.data = pixels.tobytes()
    return message


def main() -> None:
    """Run the node until it is interrupted."""
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("enet_tvm")
    artifact = node.declare_parameter("artifact", "street").value
    opacity = node.declare_parameter("opacity", 0.5).value
    publishers = [node.create_publisher(Image, topic, qos_profile_sensor_data) for topic in ("labels", "overlay")]
    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def receive(message: Any) -> None:
        try:
            arrived.put(to_picture(message))
        except UserError as error:
            node.get_logger().error(str(error))

    def pictures() -> Iterator[Picture.Image]:
        yield from iter(arrived.get, None)

    def publish(segmenter: Segmenter) -> None:
        palette = segmenter.manifest.palette
        try:
            with segmenter.stream(pictures(), live=True, depth=1) as results:
                for result in results:
                    header = result.frame.info["header"]
                    shown = np.asarray(overlay(result.frame, result.labels, palette, opacity))
                    publishers[0].publish(to_message(result.labels, "mono8", header))
                    publishers[1].publish(to_message(shown, "rgb8", header))
        finally:
            rclpy.try_shutdown()  # a node that publishes nothing any more is not to go on

    with Segmenter.load(artifact) as segmenter:
        worker = threading.Thread(target=publish, args=(segmenter,))
        worker.start()
        subscription = node.create_subscription(Image, "image", receive, qos_profile_sensor_data)
        try:
            rclpy.spin(node)
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        finally:
            node.destroy_subscription(subscription)
            arrived.put(None)
            worker.join()
            node.destroy_node()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
