"""A device on Python's `websockets` against a running server: what it is sent arrives byte for byte."""

import asyncio
import base64
import json
import os
import sys
import urllib.request

import websockets

DEVICES = os.environ["TAUTLINE_TEST_DEVICES"]
API = os.environ["TAUTLINE_TEST_API"]
TIMEOUT = 10

# Spaces, an escape, a repeated key and a number no float holds: JSON must arrive as it was sent.
JSON = '{ "b": 1.0, "a" : "\\u00e9 \U0001f600", "a": 12345678901234567890123 }'
UNICODE = "Grüße 👋🏽 \u2028 日本語"
BINARY = bytes(range(256))
LARGE = "0123456789abcdef" * 3_750  # 60,000 bytes


def post(device, body, content_type):
    request = urllib.request.Request(f"http://{API}/v1/devices/{device}/messages", data=body)
    request.add_header("Content-Type", content_type)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        return json.load(answer)


async def push(device, body, content_type="text/plain"):
    result = await asyncio.to_thread(post, device, body, content_type)
    assert result["result"] == "written", result
    return result


def connect(device, **options):
    return websockets.connect(f"ws://{DEVICES}/ws?device_id={device}", open_timeout=TIMEOUT, **options)


async def receive(line):
    return await asyncio.wait_for(line.recv(), TIMEOUT)


async def receive_message(line):
    text = await receive(line)
    message = json.loads(text)
    assert message["type"] == "message", text
    return text, message


async def welcome_comes_first():
    async with connect("py-welcome") as line:
        welcome = json.loads(await receive(line))
        assert welcome["type"] == "welcome", welcome
        assert welcome["device_id"] == "py-welcome", welcome
        assert welcome["connection_id"] and welcome["node_id"], welcome
        assert welcome["ping_ms"] > 0 and welcome["max_message_bytes"] > 0, welcome


async def json_arrives_as_it_was_sent():
    async with connect("py-json") as line:
        await receive(line)
        envelope = f'{{"data":{JSON}}}'.encode()
        result = await push("py-json", envelope, "application/json")
        text, message = await receive_message(line)
        assert JSON in text, text
        assert message["message_id"] == result["message_id"], (result, text)


async def plain_text_arrives():
    async with connect("py-text") as line:
        await receive(line)
        for payload in ["hello", UNICODE, LARGE]:
            await push("py-text", payload.encode())
            _, message = await receive_message(line)
            assert message["data"] == payload, message


async def bytes_arrive_in_base64():
    async with connect("py-bytes") as line:
        await receive(line)
        await push("py-bytes", BINARY, "application/octet-stream")
        _, message = await receive_message(line)
        assert base64.b64decode(message["data_b64"], validate=True) == BINARY, message


async def a_raw_line_carries_the_payload_alone():
    async with connect("py-raw", subprotocols=["tautline.v1.raw"]) as line:
        assert line.subprotocol == "tautline.v1.raw", line.subprotocol
        for payload in [UNICODE.encode(), BINARY, LARGE.encode()]:
            await push("py-raw", payload, "application/octet-stream")
            frame = await receive(line)
            arrived = frame.encode() if isinstance(frame, str) else frame
            assert arrived == payload, frame
            assert isinstance(frame, bytes) == (payload == BINARY), type(frame)


async def messages_stay_in_order():
    async with connect("py-order") as line:
        await receive(line)
        for number in range(50):
            await push("py-order", str(number).encode())
        arrived = [(await receive_message(line))[1]["data"] for _ in range(50)]
        assert arrived == list(range(50)), arrived


async def pings_are_answered():
    async with connect("py-ping") as line:
        await receive(line)
        await asyncio.wait_for(await line.ping(b"tautline"), TIMEOUT)
        await line.send('{"type":"ping","id":"p1"}')
        pong = json.loads(await receive(line))
        assert (pong["type"], pong.get("id")) == ("pong", "p1"), pong


async def the_line_closes_cleanly():
    line = await connect("py-close")
    await receive(line)
    await asyncio.wait_for(line.close(1000, "done"), TIMEOUT)
    assert line.close_code == 1000, (line.close_code, line.close_reason)


async def a_newer_line_replaces_the_older():
    async with connect("py-replaced") as older:
        await receive(older)
        async with connect("py-replaced") as newer:
            await receive(newer)
            await asyncio.wait_for(older.wait_closed(), TIMEOUT)
            assert older.close_code == 4502, (older.close_code, older.close_reason)


CHECKS = [
    welcome_comes_first,
    json_arrives_as_it_was_sent,
    plain_text_arrives,
    bytes_arrive_in_base64,
    a_raw_line_carries_the_payload_alone,
    messages_stay_in_order,
    pings_are_answered,
    the_line_closes_cleanly,
    a_newer_line_replaces_the_older,
]


def main():
    failed = 0
    for check in CHECKS:
        try:
            asyncio.run(check())
            print(f"ok - {check.__name__}", flush=True)
        except Exception as error:  # whatever it is, it is this check's result
            failed += 1
            print(f"not ok - {check.__name__}: {error!r:.300}", flush=True)
    sys.exit(1 if failed else 0)


main()
