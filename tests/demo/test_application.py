from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import anyio
import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from kpose.demo import application
from kpose.demo.application import PoseService, demo_application
from kpose.skeletons import COCO_17

PAGE = ["/", "/demo.js", "/demo.css", "/icon.svg"]


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()


@pytest.fixture
def service(estimator) -> PoseService:
    return PoseService(estimator)


@pytest.fixture
def client(service) -> TestClient:
    return TestClient(demo_application(service, "a network"), base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


def post(client: TestClient, content: bytes, address: str = "/poses", kind: str = "image/jpeg", **headers: str):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(address, content=content, headers={"content-type": kind, **named})


def test_a_photo_comes_back_as_the_people_that_the_estimator_finds(client, estimator, photo):
    found = post(client, cv2.imencode(".png", photo[..., ::-1])[1].tobytes(), kind="image/png").json()
    assert (found["height"], found["width"], len(found["people"])) == (144, 144, 1)
    expected = estimator(photo)[0][0]
    np.testing.assert_allclose(found["people"][0]["keypoints"], expected.keypoints, atol=1e-3)
    np.testing.assert_allclose(found["people"][0]["box"], expected.box, atol=1e-3)
    assert 0 <= found["seconds"] < 60


def test_people_are_followed_from_frame_to_frame_of_a_camera(client, service, photo):
    frames = [post(client, jpeg(photo), "/cameras/a").json() for _ in range(3)]
    assert [[person["identity"] for person in frame["people"]] for frame in frames] == [[1], [1], [1]]
    # Another camera shows other people.
    assert post(client, jpeg(photo), "/cameras/b").json()["people"][0]["identity"] == 1
    assert (service.pictures, service.frames) == (0, 4)


def test_a_camera_that_changes_its_size_starts_anew(client, photo):
    post(client, jpeg(photo), "/cameras/a")
    assert post(client, jpeg(photo[:100]), "/cameras/a").json()["height"] == 100


def test_no_more_cameras_than_some_are_remembered(client, service, photo):
    for number in range(application.MOST_CAMERAS + 3):
        post(client, jpeg(photo), f"/cameras/{number}")
    assert len(service._cameras) == application.MOST_CAMERAS


def test_the_page_is_told_what_to_draw(client):
    network = client.get("/network").json()
    assert network["title"] == "a network" and network["detector"] is False
    assert network["skeleton"]["joint_names"] == list(COCO_17.joint_names)
    assert network["limbs"] == [list(limb) for limb in COCO_17.limb_indices]
    assert len(network["colours"]) == 17 and network["colours"][5] != network["colours"][6]


@pytest.mark.parametrize("address", PAGE)
def test_the_page_comes_with_the_headers_of_safety_and_asks_nobody_else(client, address):
    answer = client.get(address)
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers
    elsewhere = answer.text.replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in elsewhere and "https://" not in elsewhere and "//cdn" not in elsewhere


@pytest.mark.parametrize(
    "address", ["/../application.py", "/%2e%2e/application.py", "/..%2fapplication.py", "/demo/page/demo.js", "//etc/passwd", "/index.html"]
)
def test_nothing_else_of_the_disk_is_served(client, address):
    answer = client.get(address)
    assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"})


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "127.0.0.1"])
def test_the_names_of_this_machine_are_known(client, host):
    assert client.get("/network", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["attacker.example", "127.0.0.1.attacker.example:8000", "localhost@attacker.example", "[", "", "192.168.0.5"]
)
def test_a_name_that_was_rebound_to_this_machine_is_refused(client, host):
    for answer in (client.get("/", headers={"host": host}), post(client, b"", host=host)):
        assert answer.status_code == 403
        assert "--allow-host" in answer.json()["error"]


def test_further_names_are_those_that_were_allowed(service):
    allowing = demo_application(service, "a network", ("Studio.lan",))
    client = TestClient(allowing, base_url="http://studio.lan:8000")
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"host": "localhost"}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://attacker.example"},
        {"origin": "http://localhost:3000"},
        {"origin": "null"},
        {"origin": "http://["},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_pages_of_other_sites_cannot_post(client, service, photo, headers):
    answer = post(client, jpeg(photo), **headers)
    assert (answer.status_code, answer.json()) == (403, {"error": "requests from other pages are refused"})
    assert service.pictures == 0


def test_the_page_itself_may_post(client, photo):
    assert post(client, jpeg(photo), origin="http://127.0.0.1:8000", sec_fetch_site="same-origin").status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "image/gif", ""])
def test_what_a_page_may_send_unasked_is_no_picture(client, photo, kind):
    answer = post(client, jpeg(photo), kind=kind)
    assert answer.status_code == 415
    assert "JPEG or PNG" in answer.json()["error"]


def test_a_preflight_gets_no_permission(client):
    answer = client.options("/poses", headers={"origin": "http://attacker.example", "access-control-request-method": "POST"})
    assert answer.status_code == 403
    assert not any(name.startswith("access-control") for name in answer.headers)


def claiming_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a JPEG nor a PNG"),
        (b"GIF89a" + b"\0" * 40, "neither a JPEG nor a PNG"),
        (jpeg(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[:-400], "damaged or cut off"),
        (claiming_png(8000, 7000), "claims 8000 x 7000 pixels, more than 50 million"),
    ],
    ids=["empty", "gif", "truncated", "huge"],
)
@pytest.mark.parametrize("address", ["/poses", "/cameras/a"])
def test_what_is_no_sound_picture_is_refused_in_one_line(client, address, content, message):
    answer = post(client, content, address)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_too_many_bytes_are_refused_by_what_is_claimed(client, monkeypatch):
    monkeypatch.setattr(application, "LARGEST_UPLOAD_BYTES", 1 << 20)
    for claimed in (str((1 << 20) + 1), "9" * 5000, "-1", "x"):
        answer = post(client, b"x", content_length=claimed)
        assert (answer.status_code, answer.json()) == (413, {"error": "the picture has more than 1 MiB; make it smaller"})


def test_too_many_bytes_are_refused_while_they_come(client, monkeypatch):
    monkeypatch.setattr(application, "LARGEST_UPLOAD_BYTES", 1 << 20)

    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(1 << 18)

    # A generator has no length that could be claimed.
    assert client.post("/poses", content=parts(), headers={"content-type": "image/jpeg"}).status_code == 413


def test_an_upload_that_never_ends_is_given_up(service, monkeypatch):
    monkeypatch.setattr(application, "_UPLOAD_SECONDS", 0.05)
    answers = anyio.run(ask, demo_application(service, "a network"), 1, None)
    assert answers == [408]


def test_a_crowd_is_told_to_come_again(service):
    # Uploads that have begun, and end when everybody has one: those beyond the limit are refused at once.
    answers = anyio.run(ask, demo_application(service, "a network"), application.MOST_WAITING + 3, b"no picture")
    assert sorted(answers) == [400] * application.MOST_WAITING + [503] * 3


async def ask(app, number: int, content: bytes | None) -> list[int]:
    """Statuses of requests that are all under way at once; their body comes after a moment, or never."""
    statuses: list[int] = []

    async def one() -> None:
        async def receive():
            await anyio.sleep_forever() if content is None else await begun.wait()
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        headers = [(b"host", b"localhost"), (b"content-type", b"image/jpeg")]
        scope = {"type": "http", "method": "POST", "path": "/poses", "raw_path": b"/poses", "query_string": b"", "headers": headers}
        await app({**scope, "http_version": "1.1", "scheme": "http", "root_path": "", "server": ("localhost", 80)}, receive, send)

    begun = anyio.Event()
    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(one)
        await anyio.wait_all_tasks_blocked()
        begun.set()
    return statuses


def test_a_fault_of_kpose_shows_no_traceback(client, service, photo, monkeypatch):
    def fails(image):
        raise RuntimeError("secret of /home/somebody")

    monkeypatch.setattr(service, "estimator", fails)
    answer = post(client, jpeg(photo))
    assert (answer.status_code, answer.json()) == (500, {"error": "kpose failed on this picture; the terminal says how"})
    monkeypatch.undo()
    assert post(client, jpeg(photo)).status_code == 200


def test_a_skeleton_whose_poses_cannot_be_compared_has_no_camera(estimator, photo):
    class WithoutSigmas:
        skeleton = type(COCO_17)("mine", ("a", "b"))
        detector = None

    client = TestClient(demo_application(PoseService(WithoutSigmas()), "mine"), base_url="http://localhost")
    assert client.get("/network").json()["cameras"] is False
    assert post(client, jpeg(photo), "/cameras/a").status_code == 404
