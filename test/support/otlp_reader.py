"""Reads stored objects with opentelemetry-proto, an implementation of OTLP that is not ours.

Takes one JSON document on standard input and answers one on standard output. Bytes travel as base64.
"""

import base64
import gzip
import json
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import (
    ExportProfilesServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REQUESTS = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
    "profiles": ExportProfilesServiceRequest,
}


def unpacked(part):
    body = base64.b64decode(part["body"])
    return gzip.decompress(body) if part["encoding"] == "gzip" else body


def decode(case):
    message = REQUESTS[case["signal"]].FromString(unpacked(case))
    return json_format.MessageToDict(message)


def compare(case):
    """None if the object is exactly its requests, one after the other, else what differs."""
    kind = REQUESTS[case["signal"]]
    wanted = kind()
    for number, part in enumerate(case["requests"]):
        try:
            wanted.MergeFrom(kind.FromString(unpacked(part)))
        except Exception as error:
            return f"request {number} cannot be read: {error}"
    try:
        found = kind.FromString(unpacked(case))
    except Exception as error:
        return f"the object cannot be read: {error}"
    # Serialized, because a message with a NaN in it does not equal itself.
    if found.SerializeToString(deterministic=True) == wanted.SerializeToString(deterministic=True):
        return None
    found_parts, wanted_parts = (message.ListFields()[:1] for message in (found, wanted))
    counts = [len(parts[0][1]) if parts else 0 for parts in (found_parts, wanted_parts)]
    return f"the object differs from its requests: {counts[0]} resources in it, {counts[1]} sent"


def main():
    task = json.load(sys.stdin)
    act = {"decode": decode, "compare": compare}[task["act"]]
    json.dump([act(case) for case in task["cases"]], sys.stdout)


main()
