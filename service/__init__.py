"""The inference service: REST, gRPC and metrics over one recognizer."""
