"""The page of the demo in a real browser, before a real server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import uvicorn

from kpose.demo.application import LOOPBACK_NAMES, PoseService, demo_application
from kpose.inference import PoseEstimator, decode_image
from tests.chromium import chromium

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service() -> PoseService:
    # The network that comes with kpose: what it finds is known to be right.
    return PoseService(PoseEstimator.from_pretrained("lite_mobilenet_v3_256x192"))


@pytest.fixture(scope="module")
def address(service) -> Iterator[str]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(demo_application(service, "a network", LOOPBACK_NAMES), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(30)
    listening.close()


@pytest.fixture(scope="module")
def camera(photo, tmp_path_factory) -> Path:
    """What the browser takes for its camera: the photo in the middle of a frame."""
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[:, 80:560] = cv2.resize(photo[..., ::-1], (480, 480))
    path = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    path.write_bytes(cv2.imencode(".jpg", frame)[1].tobytes() * 10)
    return path


@pytest.fixture(scope="module")
def browser(camera) -> Iterator[Any]:
    fake = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={camera}")
    with chromium(*fake) as browser:
        yield browser


@pytest.fixture
def page(browser, address) -> Iterator[Any]:
    """The page, ready; afterwards nothing must have gone wrong in it, and nothing been asked for elsewhere."""
    page = browser.new_page(viewport={"width": 1100, "height": 700})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((address, "blob:")) else faults.append(request.url))
    page.goto(address)
    page.wait_for_selector("#network:not(:empty)")
    yield page
    page.close()
    assert faults == []


@pytest.fixture
def picture(photo, tmp_path) -> Path:
    path = tmp_path / "astronaut.png"
    cv2.imwrite(str(path), photo[..., ::-1])
    return path


def shown(page: Any) -> dict[str, str]:
    return {name: page.inner_text(f"#{name}") for name in ("people", "joints", "rate", "message")}


def downloaded(page: Any, path: Path) -> dict[str, Any]:
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(path)
    return json.loads(path.read_text(encoding="utf-8"))


def pixel(page: Any, x: float, y: float) -> list[int]:
    """The colour of the canvas at a pixel of the picture."""
    return page.evaluate(
        "([x, y]) => [...document.getElementById('picture').getContext('2d').getImageData(x, y, 1, 1).data].slice(0, 3)",
        [round(x), round(y)],
    )


def point_at(page: Any, joint: list[float], width: int) -> None:
    box = page.locator("#picture").bounding_box()
    scale = box["width"] / width
    page.mouse.move(box["x"] + (joint[0] + 0.5) * scale, box["y"] + (joint[1] + 0.5) * scale)


def test_a_photo_is_looked_at_drawn_named_and_written_down(page, service, picture, photo, tmp_path):
    assert page.is_disabled("#download")
    page.set_input_files("#file", picture)
    page.wait_for_selector("#stage.filled")
    content = downloaded(page, tmp_path / "found.json")
    person = content["images"]["astronaut.png"]["people"][0]
    (expected,) = service.estimator(photo)[0]
    np.testing.assert_allclose(person["keypoints"], expected.keypoints, atol=2e-3)
    assert content["joint_names"] == list(service.estimator.skeleton.joint_names)
    # Her right eye and left shoulder, in the colours of their sides.
    right_eye, left_shoulder = person["keypoints"][2], person["keypoints"][5]
    assert min(right_eye[2], left_shoulder[2]) > 0.2
    red, _, blue = pixel(page, *right_eye[:2])
    assert red > 200 > blue
    red, _, blue = pixel(page, *left_shoulder[:2])
    assert blue > 200 > red
    # The name beneath the pointer, gone beside it.
    point_at(page, left_shoulder, 144)
    assert page.inner_text("#joint") == f"left shoulder {left_shoulder[2]:.2f}"
    point_at(page, [3, 3], 144)
    assert page.is_hidden("#joint")


def test_the_slider_takes_joints_away(page, picture):
    page.set_input_files("#file", picture)
    page.wait_for_selector("#stage.filled")
    before = int(shown(page)["joints"])
    page.fill("#threshold", "0.5")
    between = int(shown(page)["joints"])
    page.fill("#threshold", "1")
    assert before > between > 0 == int(shown(page)["joints"])
    assert page.inner_text("#threshold_value") == "1.00"


def test_a_photo_can_be_dropped(page, picture):
    content = page.evaluate_handle(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(bytes)], "dropped.png", {type: "image/png"}));
            return data;
        }""",
        list(picture.read_bytes()),
    )
    page.dispatch_event("#stage", "drop", {"dataTransfer": content})
    page.wait_for_selector("#stage.filled")
    assert shown(page)["people"] == "1"


def test_what_the_browser_alone_reads_is_converted(page, photo, tmp_path):
    path = tmp_path / "photo.webp"
    cv2.imwrite(str(path), photo[..., ::-1])
    page.set_input_files("#file", path)
    page.wait_for_selector("#stage.filled")
    assert shown(page)["people"] == "1"


def test_a_photo_that_lies_on_its_side_is_turned_by_both(page, photo, tmp_path):
    content = cv2.imencode(".jpg", np.ascontiguousarray(photo[:100, ::, ::-1]))[1].tobytes()
    # EXIF orientation 6: the camera was held upright.
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    content = content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:]
    assert decode_image(content, "of the test").shape == (144, 100, 3)
    path = tmp_path / "side.jpg"
    path.write_bytes(content)
    page.set_input_files("#file", path)
    page.wait_for_selector("#stage.filled")
    assert downloaded(page, tmp_path / "found.json")["images"]["side.jpg"]["width"] == 100


def test_faults_are_one_clear_line(page, tmp_path, picture):
    no_picture = tmp_path / "notes.jpg"
    no_picture.write_text("no picture")
    page.set_input_files("#file", no_picture)
    page.wait_for_selector("#message.fault")
    assert shown(page)["message"] == "notes.jpg is no picture that this browser shows"
    page.route("**/poses", lambda route: route.abort())
    page.set_input_files("#file", picture)
    page.wait_for_selector("#message:has-text('still running?')")
    page.unroute("**/poses")
    page.set_input_files("#file", picture)
    page.wait_for_selector("#stage.filled")
    assert shown(page)["message"] == ""


def test_the_camera_is_followed_at_a_frame_rate_that_is_shown(page, service):
    before = service.frames
    page.click("#camera")
    page.wait_for_selector("#rate:has-text('frames/s')")
    page.wait_for_selector("#people:has-text('1')")
    assert page.inner_text("#camera") == "Stop the camera"
    page.click("#camera")
    assert (page.inner_text("#camera"), shown(page)["rate"]) == ("Use the camera", "–")
    assert service.frames > before
