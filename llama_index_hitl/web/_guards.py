"""PLACEHOLDER"""
from starlette.requests import HTTPConnection
from urllib.parse import urlsplit

def same_origin(connection: HTTPConnection) -> bool:
    origin = connection.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == connection.headers.get("host")
