"""Sends one span over OTLP/gRPC and says how it was refused, as Python's grpc_status reads it.

Takes one JSON document on standard input, the target and the length of the span's name, and answers one on standard
output.
"""

import json
import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

ID_BYTES = {"trace_id": b"\x01" * 16, "span_id": b"\x01" * 8}


def seconds(packed):
    info = error_details_pb2.RetryInfo()
    info.ParseFromString(packed)
    return info.retry_delay.seconds + info.retry_delay.nanos / 1e9


def main():
    task = json.load(sys.stdin)
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name="x" * task["nameLength"], **ID_BYTES)
    with grpc.insecure_channel(task["target"]) as channel:
        try:
            TraceServiceStub(channel).Export(request, timeout=10)
        except grpc.RpcError as error:
            status = rpc_status.from_call(error)
            alone = dict(error.trailing_metadata()).get("google.rpc.retryinfo-bin")
            refusal = {
                "code": error.code().name,
                "message": error.details(),
                "status": status
                and {
                    "code": status.code,
                    "message": status.message,
                    "details": [[detail.type_url, seconds(detail.value)] for detail in status.details],
                },
                "retryInfoSeconds": None if alone is None else seconds(alone),
            }
            json.dump(refusal, sys.stdout)


main()
