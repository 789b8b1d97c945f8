from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from kpose.cli import main
from kpose.demo import server
from kpose.errors import KposeError


def test_a_port_that_is_taken_is_one_line(estimator):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(KposeError, match=rf"cannot listen at 127.0.0.1 port {port}: .*choose another --port"):
            server.serve(estimator, "a network", port=port)


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("192.0.2.1", 0, "cannot listen at 192.0.2.1 port 0: "),
        ("no.such.host.invalid", 0, "cannot listen at no.such.host.invalid"),
        ("x" * 70 + ".example", 0, "cannot listen at xxx"),
        ("127.0.0.1", 65536, "--port must lie in 0..65535, found 65536"),
        ("0.0.0.0", 0, "0.0.0.0 listens at all addresses of this machine; say by which one it is called, such as --allow-host"),
        ("::", 0, ":: listens at all addresses"),
        ("", 0, "listens at all addresses"),
    ],
)
def test_an_address_that_cannot_be_is_one_line(estimator, host, port, message):
    with pytest.raises(KposeError, match=message) as refusal:
        server.serve(estimator, "a network", host, port)
    assert "\n" not in str(refusal.value)


def test_without_the_extra_the_remedy_is_named(monkeypatch, capsys, estimator):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("starlette", "uvicorn") or name == "kpose.demo.application"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["demo", "--port", "0"]) == 2
    assert capsys.readouterr().err == (
        "kpose: the demo needs Starlette and uvicorn, which are not installed; run: pip install 'kpose[demo]'\n"
    )


def test_a_list_of_detections_cannot_look_at_new_pictures(tmp_path: Path, capsys):
    (tmp_path / "found.json").write_text('[{"image_id": 7, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.9}]')
    assert main(["demo", "--port", "0", "--detector", str(tmp_path / "found.json")]) == 2
    assert "found.json lists detections in pictures; the page needs a detector that looks" in capsys.readouterr().err


@pytest.mark.slow  # starts a process of its own
def test_the_command_serves_on_this_machine_alone_until_it_is_interrupted(repository: Path):
    command = [sys.executable, "-m", "kpose.cli", "demo", "--port", "0", "--no-flip"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("kpose demo: http://127.0.0.1:") and line.endswith(" (Ctrl-C ends it)\n")
            address = line.split()[2]
            with urllib.request.urlopen(f"{address}/network") as answer:
                assert json.load(answer)["title"] == "lite_mobilenet_v3_256x192"
            rebound = urllib.request.Request(address, headers={"Host": "attacker.example"})
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(rebound)
        finally:
            process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert rest == "looked at 0 pictures and 0 camera frames; nothing was kept\n"
    assert process.returncode == 0
    assert "Traceback" not in errors
