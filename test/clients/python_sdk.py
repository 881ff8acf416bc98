"""Sends with the OpenTelemetry SDK for Python, as an application would.

Takes one JSON document on standard input and answers one on standard output: how the exports ended, and what the SDK
said about itself from WARNING up.
"""

import json
import logging
import sys
import threading
import time

from grpc import Compression as GrpcCompression
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression as HttpCompression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import (
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

SECOND = 1_800_000_000 * 10**9
VALUES = {
    "text": "Grüße, 世界 😀",
    "empty text": "",
    "smallest": -(2**63),
    "largest": 2**63 - 1,
    "fraction": 0.1,
    "yes": True,
    "no": False,
    "bytes": bytes([0, 127, 128, 255]),
    "texts": ["a", "", "ü"],
    "numbers": [1, 2**62],
    "map": {"inner": {"deep": "value"}, "count": 3},
}
EXPORTERS = {
    "http": {"traces": HttpSpans, "metrics": HttpMetrics, "logs": HttpLogs},
    "grpc": {"traces": GrpcSpans, "metrics": GrpcMetrics, "logs": GrpcLogs},
}
COMPRESSIONS = {
    "http": {"gzip": HttpCompression.Gzip, "none": HttpCompression.NoCompression},
    "grpc": {"gzip": GrpcCompression.Gzip, "none": GrpcCompression.NoCompression},
}

results = []
said = []


class Watch(logging.Handler):
    def emit(self, record):
        said.append(f"{record.levelname} {record.getMessage()}")


def exporter(task, signal):
    transport = task["transport"]
    path = f"/v1/{signal}" if transport == "http" else ""
    made = EXPORTERS[transport][signal](
        endpoint=task["endpoint"] + path,
        compression=COMPRESSIONS[transport][task["compression"]],
        **({"timeout": task["timeoutSeconds"]} if "timeoutSeconds" in task else {}),
    )
    send = made.export

    def export(*args, **kwargs):
        result = send(*args, **kwargs)
        results.append(result.name)
        return result

    made.export = export
    return made


def send_spans(resource, task):
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter(task, "traces")))
    tracer = provider.get_tracer("sample", "1.2.3")
    parent = tracer.start_span(
        "GET /größe/{id} 😀", kind=trace.SpanKind.SERVER, start_time=SECOND + 123_456_789, attributes=VALUES
    )
    child = tracer.start_span(
        "child",
        context=trace.set_span_in_context(parent),
        kind=trace.SpanKind.CLIENT,
        links=[trace.Link(parent.get_span_context(), {"why": "because"})],
        start_time=SECOND + 200_000_001,
    )
    child.add_event("exception", {"exception.message": "größer als 2^53"}, timestamp=SECOND + 300_000_000)
    child.add_event("nothing more", timestamp=SECOND + 10**9)
    child.set_status(trace.StatusCode.ERROR, "failed: größer")
    child.end(SECOND + 2 * 10**9 + 1)
    parent.set_status(trace.StatusCode.OK)
    parent.end(SECOND + 4 * 10**9 - 1)
    provider.shutdown()
    return parent, child


def send_metrics(resource, task, parent):
    provider = MeterProvider(
        resource=resource,
        metric_readers=[PeriodicExportingMetricReader(exporter(task, "metrics"), 3_600_000)],
        views=[
            View(instrument_name="sizes", aggregation=ExplicitBucketHistogramAggregation([1, 10, 100])),
            View(instrument_name="delays", aggregation=ExponentialBucketHistogramAggregation(max_scale=0)),
        ],
    )
    meter = provider.get_meter("sample", "1.2.3")
    labels = {"path": "/größe"}
    sizes = meter.create_histogram("sizes", "By")
    for size in (0.5, 5, 50, 500, 500):
        sizes.record(size, labels)
    delays = meter.create_histogram("delays", "s")
    for delay in (0, 1, 2, 4):
        delays.record(delay, labels)
    # Measured within a sampled span: it becomes an exemplar.
    within = trace.set_span_in_context(parent)
    meter.create_counter("requests", "{request}", "Requests seen").add(2**63 - 1, labels, within)
    meter.create_up_down_counter("open").add(-2.5, labels)
    meter.create_gauge("load").set(0.25, labels)
    provider.shutdown()


def send_logs(resource, task, parent):
    provider = LoggerProvider(resource=resource)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter(task, "logs")))
    logger = provider.get_logger("sample", "1.2.3")
    logger.emit(
        timestamp=SECOND + 5,
        observed_timestamp=SECOND + 6,
        context=trace.set_span_in_context(parent),
        severity_number=SeverityNumber.ERROR3,
        severity_text="ERROR3 – größer",
        body=VALUES,
        attributes=VALUES,
        event_name="sample.event",
    )
    logger.emit(timestamp=SECOND + 7, observed_timestamp=SECOND + 8, body="plain 😀")
    provider.shutdown()


def send_sample(resource, task):
    """Two spans, five metrics and two log records of every kind, in one export a signal."""
    parent, child = send_spans(resource, task)
    send_metrics(resource, task, parent)
    send_logs(resource, task, parent)
    parent, child = (span.get_span_context() for span in (parent, child))
    return {
        "traceId": f"{parent.trace_id:032x}",
        "parentId": f"{parent.span_id:016x}",
        "childId": f"{child.span_id:016x}",
    }


def send_one(resource, task, name):
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(SimpleSpanProcessor(exporter(task, "traces")))
    provider.get_tracer("exports").start_span(name).end()
    provider.shutdown()


def send_exports(resource, task):
    """One span an export, started one after the other while the earlier ones may still be trying."""
    threads = []
    for number in range(task["exports"]):
        if number > 0:
            time.sleep(task["intervalSeconds"])
        threads.append(threading.Thread(target=send_one, args=(resource, task, str(number))))
        threads[-1].start()
    for thread in threads:
        thread.join()


def main():
    task = json.load(sys.stdin)
    watch = Watch(logging.WARNING)
    logging.getLogger().addHandler(watch)
    resource = Resource({"service.name": task["service"]})
    ids = {"sample": send_sample, "exports": send_exports}[task["act"]](resource, task)
    json.dump({"results": results, "said": said, "ids": ids}, sys.stdout)


main()
