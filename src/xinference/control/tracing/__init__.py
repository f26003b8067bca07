"""Spans of requests, made from their records and sent by OTLP."""
